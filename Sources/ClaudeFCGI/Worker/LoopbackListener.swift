import Glibc
import Synchronization

/// A server of HTTP on a port of this machine, for as long as a CLI is warmed or tried.
///
/// It serves one connection after the other, each for one request.
final class LoopbackListener: Sendable {
    /// What was posted to `/v1/messages`.
    final class Bodies: Sendable {
        fileprivate let all = Mutex<[[UInt8]]>([])
        /// The first of them.
        var first: [UInt8]? { all.withLock { $0.first } }
    }

    private static let limitBytes = 1 << 20
    private let descriptor: CInt
    private let port: UInt16
    private let isClosed = Atomic<Bool>(false)

    /// Listens on any free port; nil where that can't be.
    init?() {
        let socket = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { return nil }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                unsafe bind(socket, __CONST_SOCKADDR_ARG(__sockaddr__: raw), length) == 0 && listen(socket, 4) == 0
                    && getsockname(socket, __SOCKADDR_ARG(__sockaddr__: raw), &length) == 0
            }
        }
        guard isBound else {
            Glibc.close(socket)
            return nil
        }
        descriptor = socket
        port = UInt16(bigEndian: address.sin_port)
    }

    /// The base URL.
    var address: String { "http://127.0.0.1:\(port)" }

    /// Serves on a thread of its own until ``close()``.
    ///
    /// - Parameter answer: Gives the event stream for what was posted to `/v1/messages`; nil refuses it with a 400, as all else is.
    /// - Returns: What has been posted there.
    @discardableResult func serve(_ answer: @escaping @Sendable ([UInt8]) -> [UInt8]?) -> Bodies {
        let bodies = Bodies()
        BackgroundThread.start("listener") { [self] in
            while !isClosed.load(ordering: .relaxed) {
                var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                guard unsafe poll(&entry, 1, 100) > 0 else { continue }
                let connection = unsafe accept4(
                    descriptor, __SOCKADDR_ARG(__sockaddr__: nil), nil, CInt(SOCK_CLOEXEC.rawValue))
                guard connection >= 0 else { continue }
                serve(connection, bodies, answer)
                Glibc.close(connection)
            }
            Glibc.close(descriptor)
        }
        return bodies
    }

    /// Ends the thread.
    func close() { isClosed.store(true, ordering: .relaxed) }

    private func serve(_ connection: CInt, _ bodies: Bodies, _ answer: ([UInt8]) -> [UInt8]?) {
        var timeout = timeval(tv_sec: 5, tv_usec: 0)
        unsafe setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        var head: (line: String, bodyStart: Int, length: Int)?
        while bytes.count < Self.limitBytes {
            if let head, bytes.count >= head.bodyStart + head.length { break }
            let count = unsafe read(connection, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            bytes += chunk[..<count]
            if head == nil { head = Self.head(of: bytes) }
        }
        guard let head, bytes.count >= head.bodyStart + head.length else { return }
        var stream: [UInt8]?
        if head.line.hasPrefix("POST /v1/messages?") || head.line.hasPrefix("POST /v1/messages ") {
            let body = Array(bytes[head.bodyStart..<(head.bodyStart + head.length)])
            bodies.all.withLock { $0.append(body) }
            stream = answer(body)
        }
        let reply =
            if let stream { Self.reply("200 OK", "text/event-stream", stream) } else {
                Self.reply("400 Bad Request", "application/json", Array(Self.refusal.utf8))
            }
        // It fits into the socket's buffer.
        _ = unsafe send(connection, reply, reply.count, CInt(MSG_NOSIGNAL))
    }

    private static let refusal =
        #"{"type":"error","error":{"type":"invalid_request_error","message":"This is a trial."}}"#

    private static func reply(_ status: String, _ type: String, _ body: [UInt8]) -> [UInt8] {
        let head =
            "HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(body.count)\r\nConnection: close\r\n\r\n"
        return Array(head.utf8) + body
    }

    /// The request line, where the body begins, and its length; nil before the header is whole.
    private static func head(of bytes: [UInt8]) -> (line: String, bodyStart: Int, length: Int)? {
        let end = Array("\r\n\r\n".utf8)
        guard let start = bytes.indices.dropLast(3).first(where: { Array(bytes[$0..<($0 + 4)]) == end }) else {
            return nil
        }
        let lines = String(decoding: bytes[..<start], as: UTF8.self).split(separator: "\r\n")
        var length = 0
        for line in lines.dropFirst() where line.lowercased().hasPrefix("content-length:") {
            length = Int(String(line.dropFirst("content-length:".count)).trimmed) ?? 0
        }
        return (String(lines.first ?? ""), start + 4, min(max(length, 0), limitBytes))
    }
}
