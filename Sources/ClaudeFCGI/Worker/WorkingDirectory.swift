import Dialects
import Glibc

/// Decides whether a caller may have a run in a directory.
enum WorkingDirectory {
    /// The directory, held open: where it is has been looked at behind every symbolic link, and stays so for who enters it.
    ///
    /// - Parameters:
    ///   - path: As the caller wrote it.
    ///   - parameter: Where the request has it.
    ///   - roots: Directories of which one must be above it, or be it.
    /// - Throws: ``APIError``: 400 for a path that is none, 403 for one outside the roots.
    static func open(
        _ path: String, parameter: String = "workingDirectory", roots: [String]
    ) throws(APIError) -> OpenDirectory {
        guard path.hasPrefix("/"), !path.utf8.contains(0) else {
            throw .invalid(parameter, "`\(parameter)` must be an absolute path.")
        }
        if path.split(separator: "/").contains("..") {
            throw .invalid(parameter, "`\(parameter)` must not have `..` in it.")
        }
        let allowed = roots.compactMap { Files.resolved($0) }
        guard let directory = OpenDirectory(path) else {
            if let real = Files.resolved(path), isInside(real, allowed), Files.exists(real) {
                throw .invalid(parameter, "`\(parameter)` is not a directory that the service may enter.")
            }
            // Of what is missing only that much is said that the roots show anyway: a link that leads out of them to
            // nothing is answered like one that leads to something.
            let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
            if let realParent = Files.resolved(parent), isInside(realParent, allowed), !Files.exists(path) {
                throw .invalid(
                    parameter,
                    "`\(parameter)` does not exist on the server. Make it first, or leave it out for a fresh one.")
            }
            throw outside(parameter, roots)
        }
        guard isInside(directory.path, allowed) else { throw outside(parameter, roots) }
        return directory
    }

    /// The directory with every symbolic link resolved.
    static func resolve(
        _ path: String, parameter: String = "workingDirectory", roots: [String]
    ) throws(APIError) -> String {
        try open(path, parameter: parameter, roots: roots).path
    }

    private static func isInside(_ path: String, _ roots: [String]) -> Bool {
        roots.contains { path == $0 || path.hasPrefix($0 == "/" ? "/" : $0 + "/") }
    }

    private static func outside(_ parameter: String, _ roots: [String]) -> APIError {
        let names =
            roots.isEmpty
            ? "none is allowed (ALLOWED_DIRECTORIES)"
            : "allowed are \(roots.joined(separator: ", ")) and what is below"
        return APIError(
            .forbidden, "`\(parameter)` is outside the allowed directories: \(names). Leave it out for a fresh one.",
            parameter: parameter)
    }
}

/// A directory that is held open; closed when it leaves scope.
struct OpenDirectory: ~Copyable {
    /// Opened for its path alone: nothing is read or written by it.
    let descriptor: CInt
    /// Where it was when it was opened, without symbolic links.
    let path: String

    /// Opens the directory that the path leads to; nil when there is none, or its path is not UTF-8.
    init?(_ path: String) {
        let descriptor = unsafe Glibc.open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        var status = stat()
        // A directory that has been removed has no place any more.
        guard unsafe fstat(descriptor, &status) == 0, status.st_nlink > 0,
            let real = Files.linkTarget("/proc/self/fd/\(descriptor)")
        else {
            close(descriptor)
            return nil
        }
        self.descriptor = descriptor
        self.path = real
    }

    deinit { close(descriptor) }
}
