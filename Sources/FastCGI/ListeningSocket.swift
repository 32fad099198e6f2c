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

    /// Binds and listens on a path; mode 0660.
    ///
    /// A stale socket file is replaced, a live server is left alone.
    public static func bind(path: String, backlog: CInt = 511) throws(ListeningSocketError) -> ListeningSocket {
        var address = sockaddr_un()
        let limit = MemoryLayout.size(ofValue: address.sun_path) - 1
        guard path.utf8.count <= limit else { throw .pathTooLong(path: path, limit: limit) }
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in path.utf8.enumerated() { unsafe field[index] = byte }
        }
        func failure(_ name: String) -> ListeningSocketError {
            .systemCall(name: name, path: path, errno: errno)
        }
        func withAddress(_ call: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
            unsafe withUnsafePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe call($0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
        }
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        var status = stat()
        if unsafe lstat(path, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path: path) }
            // Non-blocking: a live server whose backlog is full answers EAGAIN, and would block us for as long.
            let probe = socket(AF_UNIX, kind | CInt(SOCK_NONBLOCK.rawValue), 0)
            guard probe >= 0 else { throw failure("socket") }
            let connected = unsafe withAddress {
                unsafe Glibc.connect(probe, __CONST_SOCKADDR_ARG(__sockaddr__: $0), $1)
            }
            let number = errno
            close(probe)
            guard connected != 0, number == ECONNREFUSED else { throw .inUse(path: path) }
            unsafe unlink(path)
        }

        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else { throw failure("socket") }
        let previousMask = umask(0o117)
        let bound = unsafe withAddress { unsafe Glibc.bind(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), $1) }
        let bindError = errno
        umask(previousMask)
        guard bound == 0, listen(descriptor, backlog) == 0 else {
            let number = bound == 0 ? errno : bindError
            close(descriptor)
            if number == EADDRINUSE { throw .inUse(path: path) }
            throw .systemCall(name: "bind", path: path, errno: number)
        }
        return try prepare(descriptor, boundPath: path)
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
