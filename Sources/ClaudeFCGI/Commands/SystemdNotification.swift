import Glibc

/// Tells systemd of the service's state, as sd_notify(3) describes: a datagram to the socket in NOTIFY_SOCKET.
enum SystemdNotification {
    /// Sends a state such as `READY=1`; does nothing when systemd did not start the process.
    static func send(_ state: String) {
        guard let path = ProcessEnvironment.all["NOTIFY_SOCKET"] else { return }
        var address = sockaddr_un()
        guard path.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in path.utf8.enumerated() { unsafe field[index] = byte }
            // An abstract socket's name begins with a zero byte, which NOTIFY_SOCKET writes as @.
            if path.hasPrefix("@") { unsafe field[0] = 0 }
        }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + path.utf8.count)
        let descriptor = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = unsafe sendto(
                    descriptor, state, state.utf8.count, CInt(MSG_NOSIGNAL), __CONST_SOCKADDR_ARG(__sockaddr__: $0),
                    length)
            }
        }
    }
}
