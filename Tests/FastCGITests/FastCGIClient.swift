import Foundation
import Testing

/// A FastCGI client as small as the tests need it: records written and read by hand, so that they can be wrong on purpose.
///
/// Source: the FastCGI specification, section 3.3. Owns its descriptor.
final class FastCGIClient: Sendable {
    /// The record types that are used here.
    enum Kind: UInt8 {
        case beginRequest = 1, abortRequest, endRequest, params, stdin, stdout, stderr, data, getValues
    }

    /// A record's type and content.
    struct Record: Equatable {
        var kind: UInt8
        var content: [UInt8]
    }

    /// Everything that came back until the server closed.
    struct Reply {
        var records: [Record] = []

        var output: [UInt8] { records.filter { $0.kind == Kind.stdout.rawValue }.flatMap(\.content) }
        var text: String { String(decoding: output, as: UTF8.self) }
        var end: [UInt8]? { records.last { $0.kind == Kind.endRequest.rawValue }?.content }
    }

    /// Nobody listens there.
    struct NotConnected: Error { var errno: Int32 }

    let descriptor: CInt

    /// Connects to the server's socket.
    init(path: String) throws {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in path.utf8.enumerated() { unsafe field[index] = byte }
        }
        descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(
                    descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        let number = errno
        guard result == 0 else { throw NotConnected(errno: number) }
    }

    deinit { close(descriptor) }

    /// One record as bytes.
    static func record(_ kind: Kind, _ content: some Collection<UInt8>, padding: Int = 0, version: UInt8 = 1) -> [UInt8]
    {
        let length = content.count
        return [version, kind.rawValue, 0, 1, UInt8(length >> 8), UInt8(length & 255), UInt8(padding), 0] + content
            + [UInt8](repeating: 0xAA, count: padding)
    }

    /// BEGIN_REQUEST in the responder role.
    static func begin(role: UInt8 = 1, keepsConnection: Bool = false) -> [UInt8] {
        record(.beginRequest, [0, role, keepsConnection ? 1 : 0, 0, 0, 0, 0, 0])
    }

    /// Name-value pairs with one- or four-byte lengths, as section 3.4 has them.
    static func pairs(_ parameters: [(String, String)]) -> [UInt8] {
        func length(_ count: Int) -> [UInt8] {
            count < 128
                ? [UInt8(count)]
                : [
                    UInt8(count >> 24 & 0x7F | 0x80), UInt8(count >> 16 & 255), UInt8(count >> 8 & 255),
                    UInt8(count & 255),
                ]
        }
        return parameters.flatMap { length($0.utf8.count) + length($1.utf8.count) + Array($0.utf8) + Array($1.utf8) }
    }

    /// A stream of records of one kind, with its empty last one.
    static func stream(_ kind: Kind, _ content: [UInt8], recordBytes: Int = 65535, isEnded: Bool = true) -> [UInt8] {
        var bytes: [UInt8] = []
        var start = 0
        while start < content.count {
            let end = min(content.count, start + recordBytes)
            bytes += record(kind, content[start..<end])
            start = end
        }
        return isEnded ? bytes + record(kind, []) : bytes
    }

    /// A whole request as nginx writes it.
    static func request(
        _ parameters: [(String, String)] = [], body: [UInt8] = [], announced: Int? = nil, recordBytes: Int = 65535,
        isEnded: Bool = true
    ) -> [UInt8] {
        let all =
            [("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", String(announced ?? body.count))] + parameters
        return begin() + stream(.params, pairs(all))
            + stream(.stdin, body, recordBytes: recordBytes, isEnded: isEnded)
    }

    /// Sends; false when the server has closed.
    @discardableResult
    func send(_ bytes: [UInt8]) -> Bool {
        var start = 0
        while start < bytes.count {
            let count = unsafe bytes[start...].withUnsafeBytes {
                unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
            }
            if count <= 0 { return false }
            start += count
        }
        return true
    }

    /// All records until the server closes.
    func receive() -> Reply {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = unsafe recv(descriptor, &chunk, chunk.count, 0)
            if count <= 0 { break }
            bytes += chunk[..<count]
        }
        var reply = Reply()
        var rest = bytes[...]
        while rest.count >= 8 {
            let header = Array(rest.prefix(8))
            let length = Int(header[4]) << 8 | Int(header[5])
            rest = rest.dropFirst(8)
            reply.records.append(Record(kind: header[1], content: Array(rest.prefix(length))))
            rest = rest.dropFirst(length + Int(header[6]))
        }
        return reply
    }
}
