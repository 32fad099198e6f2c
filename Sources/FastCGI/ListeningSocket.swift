import CLinux
import Glibc

/// Why the responder has no socket to accept on.
public enum ListeningSocketError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Descriptor 0 is no listening socket and systemd passed none.
    case nothingInherited
    /// The path does not fit `sockaddr_un`.
    case pathTooLong(path: String, limit: Int)
    /// A live server answers on the path.
    case inUse(path: String)
    /// There is something else at the path.
    case notASocket(path: String)
    /// A system call failed.
    case systemCall(name: String, path: String, errno: Int32)

    /// What happened and what to do.
    public var description: String {
        switch self {
        case .nothingInherited:
            "descriptor 0 is not a listening socket and LISTEN_FDS passes none; start the responder through systemd or "
                + "supervisor, or name a socket with --socket PATH"
        case .pathTooLong(let path, let limit):
            "the socket path \(path) is longer than the \(limit) bytes that Linux allows; choose a shorter RUN_DIR"
        case .inUse(let path):
            "another server is listening on \(path); stop it or choose another path"
        case .notASocket(let path): "\(path) exists and is no socket; remove it or choose another path"
        case .systemCall(let name, let path, let number):
            "\(name) failed for \(path): \(unsafe String(cString: strerror(number)))"
        }
    }
}

/// A listening Unix socket, inherited or bound here.
///
/// Never TCP: libfcgi's parser aborts the process on hostile records, so only nginx's group may reach the socket.
public struct ListeningSocket: Sendable {
    /// The descriptor; non-blocking and close-on-exec.
    public let descriptor: CInt
    /// The path that was bound here and is removed by ``unlinkIfBound()``; nil for an inherited socket.
    public let boundPath: String?

    /// systemd's first socket (`LISTEN_FDS`, sd_listen_fds(3)), else descriptor 0 (FastCGI's own convention).
    public static func inherited() throws(ListeningSocketError) -> ListeningSocket {
        if let count = environmentNumber("LISTEN_FDS"), count > 0, environmentNumber("LISTEN_PID") == Int(getpid()),
            isListening(3)
        {
            return try prepare(3, boundPath: nil)
        }
        guard isListening(0) else { throw .nothingInherited }
        return try prepare(0, boundPath: nil)
    }

    private static let mode: mode_t = 0o660

    /// Binds and listens on a path; mode 0660.
    ///
    /// A stale socket file is replaced, a live server is left alone.
    public static func bind(path: String, backlog: CInt = 511) throws(ListeningSocketError) -> ListeningSocket {
        let address = try SocketAddress(path: path)
        var status = stat()
        if unsafe lstat(path, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path: path) }
            guard address.isRefused else { throw .inUse(path: path) }
            unsafe unlink(path)
        }

        let descriptor = address.makeSocket()
        guard descriptor >= 0 else { throw .systemCall(name: "socket", path: path, errno: errno) }
        // For its owner and group from the first moment, and all of that whatever the umask, which is the whole process's. Nobody
        // can connect before it listens.
        fchmod(descriptor, mode)
        let bound = unsafe address.withPointer {
            unsafe Glibc.bind(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), $1)
        }
        guard bound == 0, unsafe chmod(path, mode) == 0, listen(descriptor, backlog) == 0 else {
            let number = errno
            close(descriptor)
            if number == EADDRINUSE { throw .inUse(path: path) }
            throw .systemCall(name: "bind", path: path, errno: number)
        }
        return try prepare(descriptor, boundPath: path)
    }

    /// Binds the socket of this process alone, `r-PID.sock` in a directory.
    ///
    /// Whoever may connect to the shared socket may connect to this one: it gets the same group and mode.
    ///
    /// - Parameters:
    ///   - directory: Where nginx looks for it.
    ///   - shared: The socket that all responders accept from.
    public static func bindOwn(
        directory: String, like shared: ListeningSocket, backlog: CInt = 511
    ) throws(ListeningSocketError) -> ListeningSocket {
        let own = try bind(path: directory + "/" + ownName(pid: getpid()), backlog: backlog)
        guard let path = own.boundPath, let sharedPath = shared.address else { return own }
        var model = stat()
        var status = stat()
        // An inherited socket whose file is gone, or out of our sight, teaches nothing: it stays ours and our group's.
        guard unsafe stat(sharedPath, &model) == 0, unsafe stat(path, &status) == 0 else { return own }
        // In a directory with the set-group-id bit the file has its group already, which a service may lack the right to set.
        if model.st_gid != status.st_gid, unsafe chown(path, uid_t.max, model.st_gid) != 0 {
            let number = errno
            own.unlinkIfBound()
            close(own.descriptor)
            throw .systemCall(name: "chown", path: path, errno: number)
        }
        unsafe chmod(path, model.st_mode & 0o660)
        return own
    }

    /// The file name of a responder's own socket, by which nginx is told whom a request is for.
    public static func ownName(pid: Int32) -> String { "r-\(pid).sock" }

    /// Removes the sockets that responders left behind when they were killed.
    ///
    /// Only where the process is gone and nobody listens: between `bind` and `listen` a living one refuses as well.
    public static func removeStaleOwn(directory: String) {
        guard let stream = unsafe opendir(directory) else { return }
        defer { unsafe closedir(stream) }
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { field in
                unsafe field.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: field.pointee)) {
                    unsafe String(cString: $0)
                }
            }
            guard name.hasPrefix("r-"), name.hasSuffix(".sock"), let pid = Int32(name.dropFirst(2).dropLast(5)),
                pid > 0,
                kill(pid, 0) != 0, errno == ESRCH
            else { continue }
            let path = directory + "/" + name
            var status = stat()
            guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { continue }
            if let address = try? SocketAddress(path: path), address.isRefused { unsafe unlink(path) }
        }
    }

    /// The path that the socket is bound to; nil for one without.
    private var address: String? {
        if let boundPath { return boundPath }
        var address = sockaddr_un()
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe getsockname(descriptor, __SOCKADDR_ARG(__sockaddr__: $0), &length)
            }
        }
        guard result == 0, address.sun_family == sa_family_t(AF_UNIX) else { return nil }
        let path = unsafe withUnsafeBytes(of: address.sun_path) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        return path.isEmpty ? nil : path
    }

    /// Removes the socket file that ``bind(path:backlog:)`` made.
    public func unlinkIfBound() {
        if let boundPath { unsafe unlink(boundPath) }
    }

    private static func prepare(_ descriptor: CInt, boundPath: String?) throws(ListeningSocketError) -> ListeningSocket
    {
        guard clinux_set_nonblocking(descriptor) >= 0, clinux_set_cloexec(descriptor) >= 0 else {
            throw .systemCall(name: "fcntl", path: boundPath ?? "descriptor \(descriptor)", errno: errno)
        }
        return ListeningSocket(descriptor: descriptor, boundPath: boundPath)
    }

    private static func isListening(_ descriptor: CInt) -> Bool {
        var value: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        return unsafe getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
    }

    private static func environmentNumber(_ name: String) -> Int? {
        unsafe getenv(name).flatMap { unsafe Int(String(cString: $0)) }
    }
}
