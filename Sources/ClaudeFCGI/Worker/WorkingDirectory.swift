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
        // Outside the roots nothing is said of what exists: the answer is the same.
        let real = Files.resolved(path)
        guard let real, allowed.contains(where: { real == $0 || real.hasPrefix($0 == "/" ? "/" : $0 + "/") }) else {
            let isBelowRoot = roots.contains { path == $0 || path.hasPrefix($0 + "/") }
            if isBelowRoot, real == nil {
                throw .invalid(
                    "workingDirectory",
                    "`workingDirectory` does not exist on the server. Make it "
                        + "first, or leave it out for a fresh one.")
            }
            let names =
                roots.isEmpty
                ? "none is allowed (the operator's ALLOWED_DIRECTORIES is empty)"
                : "allowed are \(roots.joined(separator: ", ")) and what is below"
            throw APIError(
                .forbidden,
                "`workingDirectory` is outside the allowed directories: \(names). Leave it out for a "
                    + "fresh one.",
                parameter: "workingDirectory")
        }
        guard Files.isDirectory(real) else {
            throw .invalid(
                "workingDirectory",
                "`workingDirectory` is not a "
                    + "directory.")
        }
        return real
    }
}
