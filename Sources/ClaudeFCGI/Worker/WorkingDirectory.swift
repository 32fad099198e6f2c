import Dialects

/// Decides whether a caller may have a run in a directory.
enum WorkingDirectory {
    /// The directory with every symbolic link resolved.
    ///
    /// - Throws: ``APIError``: 400 for a path that is none, 403 for one outside the roots.
    static func resolve(_ path: String, roots: [String]) throws(APIError) -> String {
        guard path.hasPrefix("/"), !path.utf8.contains(0) else {
            throw .invalid("workingDirectory", "`workingDirectory` must be an absolute path.")
        }
        if path.split(separator: "/").contains("..") {
            throw .invalid("workingDirectory", "`workingDirectory` must not have `..` in it.")
        }
        let allowed = roots.compactMap { Files.resolved($0) }
        guard let real = Files.resolved(path) else {
            // Of what is missing only that much is said that the roots show anyway: a link that leads out of them to
            // nothing is answered like one that leads to something.
            let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
            if let realParent = Files.resolved(parent), isInside(realParent, allowed), !Files.exists(path) {
                throw .invalid(
                    "workingDirectory",
                    "`workingDirectory` does not exist on the server. Make it first, or leave it out for a fresh one.")
            }
            throw outside(roots)
        }
        guard isInside(real, allowed) else { throw outside(roots) }
        guard Files.isDirectory(real) else {
            throw .invalid(
                "workingDirectory",
                "`workingDirectory` is not a "
                    + "directory.")
        }
        return real
    }

    private static func isInside(_ path: String, _ roots: [String]) -> Bool {
        roots.contains { path == $0 || path.hasPrefix($0 == "/" ? "/" : $0 + "/") }
    }

    private static func outside(_ roots: [String]) -> APIError {
        let names =
            roots.isEmpty
            ? "none is allowed (the operator's ALLOWED_DIRECTORIES is empty)"
            : "allowed are \(roots.joined(separator: ", ")) and what is below"
        return APIError(
            .forbidden,
            "`workingDirectory` is outside the allowed directories: \(names). Leave it out for a fresh one.",
            parameter: "workingDirectory")
    }
}
