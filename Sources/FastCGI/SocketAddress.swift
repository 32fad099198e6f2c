import CLinux
import Glibc

/// Where a Unix socket is bound.
struct SocketAddress {
    private var address = sockaddr_un()

    /// The address of a path.
    ///
    /// - Throws: ``ListeningSocketError/pathTooLong(path:limit:)`` alone.
    init(path: String) throws(ListeningSocketError) {
        let limit = MemoryLayout.size(ofValue: address.sun_path) - 1
        guard path.utf8.count <= limit else { throw .pathTooLong(path: path, limit: limit) }
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in path.utf8.enumerated() { unsafe field[index] = byte }
        }
    }

    /// Whether there is a socket file and nobody listens on it.
    ///
    /// False in doubt.
    var isRefused: Bool {
        // Non-blocking: a live server whose backlog is full answers EAGAIN, and would block us for as long.
        let probe = makeSocket(CInt(SOCK_NONBLOCK.rawValue))
        guard probe >= 0 else { return false }
        defer { close(probe) }
        let result = unsafe withPointer { unsafe Glibc.connect(probe, __CONST_SOCKADDR_ARG(__sockaddr__: $0), $1) }
        return result != 0 && errno == ECONNREFUSED
    }

    /// A new socket for such an address, closed on exec; negative with `errno`.
    func makeSocket(_ flags: CInt = 0) -> CInt {
        socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | flags, 0)
    }

    /// Calls with the address as the system takes it.
    func withPointer(_ call: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
        unsafe withUnsafePointer(to: address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe call($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
