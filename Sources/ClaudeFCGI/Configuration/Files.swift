import CLinux
import Glibc

/// A failed file operation.
struct FileError: Error, CustomStringConvertible {
    let call: String
    let path: String
    let number: Int32

    var description: String { "\(call) \(path): \(unsafe String(cString: strerror(number)))" }
}

/// The few file operations that this program needs, without Foundation: it doubles a responder's memory.
enum Files {
    static let notFound = ENOENT

    /// What tells one version of a file from another: it changes when the file is replaced or written.
    struct Identity: Equatable, Sendable {
        let device: UInt64
        let inode: UInt64
        let size: Int64
        let seconds: Int
        let nanoseconds: Int

        /// For a cache's key.
        var description: String { "\(device)-\(inode)-\(size)-\(seconds).\(nanoseconds)" }
    }

    /// The identity of what the path leads to; nil when there is nothing.
    static func identity(_ path: String) -> Identity? {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return nil }
        return Identity(
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino), size: Int64(status.st_size),
            seconds: Int(status.st_mtim.tv_sec), nanoseconds: Int(status.st_mtim.tv_nsec))
    }

    /// Whether there is something at the path; a link counts wherever it leads.
    static func exists(_ path: String) -> Bool {
        var status = stat()
        return unsafe lstat(path, &status) == 0
    }

    static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    static func isExecutableFile(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }

    /// A file's text.
    static func read(_ path: String, limitBytes: Int) throws(FileError) -> String {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(call: "open", path: path, number: errno) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = unsafe Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw FileError(call: "read", path: path, number: errno) }
            if count == 0 { break }
            bytes += chunk[..<count]
            if bytes.count > limitBytes { throw FileError(call: "read", path: path, number: EFBIG) }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Writes a file whole or not at all: a reader never sees half of it.
    static func replace(_ path: String, with bytes: [UInt8]) throws(FileError) {
        let temporary = "\(path).\(getpid())"
        let descriptor = unsafe open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError(call: "open", path: temporary, number: errno) }
        let count = unsafe write(descriptor, bytes, bytes.count)
        let number = count < 0 ? errno : ENOSPC
        close(descriptor)
        guard count == bytes.count, unsafe rename(temporary, path) == 0 else {
            let failure = count == bytes.count ? errno : number
            unsafe unlink(temporary)
            throw FileError(call: "write", path: path, number: failure)
        }
    }

    /// Makes a directory and those above it.
    static func makeDirectory(_ path: String, mode: mode_t = 0o700) throws(FileError) {
        if isDirectory(path) { return }
        if let slash = path.lastIndex(of: "/"), slash > path.startIndex { try makeDirectory(String(path[..<slash])) }
        guard unsafe mkdir(path, mode) == 0 else {
            if errno == EEXIST { return }
            throw FileError(call: "mkdir", path: path, number: errno)
        }
        // In RUN_DIR it would inherit the set-group-id bit, which is for the sockets there: a tool that changes modes below
        // would be refused, because the sandbox lets no such bit be set.
        unsafe chmod(path, mode)
    }

    /// The names in a directory, without `.` and `..`; none when it can't be read.
    static func names(in path: String) -> [String] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// Removes a file, or a directory with all that is in it; symbolic links are removed, not followed.
    static func remove(_ path: String) {
        if unsafe unlink(path) == 0 { return }
        if unsafe rmdir(path) == 0 { return }
        var status = stat()
        guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return }
        unsafe chmod(path, 0o700)
        for name in names(in: path) { remove("\(path)/\(name)") }
        unsafe rmdir(path)
    }

    /// Where a symbolic link leads; nil when there is none, or its target is not UTF-8.
    static func linkTarget(_ path: String) -> String? {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let count = unsafe readlink(path, &bytes, bytes.count - 1)
        return count > 0 ? String(validating: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
    }

    /// The path with every symbolic link resolved; nil when it leads nowhere.
    static func resolved(_ path: String) -> String? {
        guard let real = unsafe realpath(path, nil) else { return nil }
        defer { unsafe free(real) }
        return unsafe String(validatingCString: real)
    }
}

/// The directory the process stands in.
func currentDirectory() -> String {
    guard let path = unsafe getcwd(nil, 0) else { return "/" }
    defer { unsafe free(path) }
    return unsafe String(cString: path)
}

/// The environment the process was started with.
enum ProcessEnvironment {
    static var all: [String: String] {
        var result: [String: String] = [:]
        var entry = unsafe Glibc.environ
        while let text = unsafe entry.pointee {
            let pair = unsafe String(cString: text)
            if let equals = pair.firstIndex(of: "=") {
                result[String(pair[..<equals])] = String(pair[pair.index(after: equals)...])
            }
            unsafe entry += 1
        }
        return result
    }

    /// Blanks a variable where the kernel shows it (`/proc/PID/environ`): what the CLI's tools run as the same user.
    static func erase(_ name: String) {
        var entry = unsafe Glibc.environ
        while let text = unsafe entry.pointee {
            let pair = unsafe String(cString: text)
            if pair.hasPrefix("\(name)=") {
                let first = name.utf8.count + 1
                for offset in first..<pair.utf8.count { unsafe text[offset] = 0x78 }
            }
            unsafe entry += 1
        }
    }
}
