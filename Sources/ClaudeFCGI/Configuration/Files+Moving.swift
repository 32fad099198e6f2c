import Glibc

extension Files {
    /// A file's length; nil when there is none.
    static func size(_ path: String) -> Int? { identity(path).map { Int($0.size) } }

    /// A part of a file.
    static func read(_ path: String, from start: Int, to end: Int) throws(FileError) -> [UInt8] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(call: "open", path: path, number: errno) }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: max(0, end - start))
        var filled = 0
        while filled < bytes.count {
            let count = unsafe bytes[filled...].withUnsafeMutableBytes { buffer in
                unsafe pread(descriptor, buffer.baseAddress, buffer.count, off_t(start + filled))
            }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw FileError(call: "read", path: path, number: errno) }
            if count == 0 { break }
            filled += count
        }
        return Array(bytes[..<filled])
    }

    /// Cuts a file to a length.
    static func cut(_ path: String, toBytes bytes: Int) throws(FileError) {
        if unsafe truncate(path, off_t(bytes)) != 0 { throw FileError(call: "truncate", path: path, number: errno) }
    }

    /// Waits until what a file holds is on the disk.
    static func flushToDisk(_ path: String) throws(FileError) {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(call: "open", path: path, number: errno) }
        defer { close(descriptor) }
        if fsync(descriptor) != 0 { throw FileError(call: "fsync", path: path, number: errno) }
    }

    /// Copies the first bytes of a file into a new one.
    static func copy(_ path: String, to copy: String, bytes: Int) throws(FileError) {
        let source = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard source >= 0 else { throw FileError(call: "open", path: path, number: errno) }
        defer { close(source) }
        let target = unsafe open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard target >= 0 else { throw FileError(call: "open", path: copy, number: errno) }
        defer { close(target) }
        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        var left = bytes
        while left > 0 {
            let count = unsafe Glibc.read(source, &chunk, min(chunk.count, left))
            if count < 0, errno == EINTR { continue }
            // A disk that is full takes less than it is given.
            guard count > 0, unsafe write(target, chunk, count) == count else {
                let number = errno == 0 ? ENOSPC : errno
                unsafe unlink(copy)
                throw FileError(call: "copy", path: path, number: number)
            }
            left -= count
        }
    }

    /// Moves a file, also to another file system.
    static func move(_ path: String, to target: String) throws(FileError) {
        if unsafe rename(path, target) == 0 { return }
        guard errno == EXDEV, let size = size(path) else {
            throw FileError(call: "rename", path: path, number: errno)
        }
        try copy(path, to: target, bytes: size)
        unsafe unlink(path)
    }

    /// Copies a directory with all that is in it: files, directories, symbolic links as such.
    static func copyTree(_ path: String, to copy: String) throws(FileError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { throw FileError(call: "lstat", path: path, number: errno) }
        switch status.st_mode & S_IFMT {
        case S_IFDIR:
            try makeDirectory(copy)
            for name in names(in: path) { try copyTree("\(path)/\(name)", to: "\(copy)/\(name)") }
            unsafe chmod(copy, status.st_mode & 0o7777 | 0o700)
        case S_IFREG:
            try Self.copy(path, to: copy, bytes: Int(status.st_size))
            unsafe chmod(copy, status.st_mode & 0o7777)
        case S_IFLNK:
            // One whose target is not UTF-8 is left out.
            if let target = linkTarget(path), unsafe symlink(target, copy) != 0, errno != EEXIST {
                throw FileError(call: "symlink", path: copy, number: errno)
            }
        default: break
        }
    }
}
