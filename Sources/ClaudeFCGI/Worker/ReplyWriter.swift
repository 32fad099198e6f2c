import CLinux
import Dialects
import FastCGI
import Glibc

/// What a client is sent, held back until nginx can take it: nothing here ever blocks on a slow client.
struct ReplyWriter {
    /// Above this much unsent the CLI's output is left in its pipe, so that a slow client slows the CLI and not memory.
    static let highWaterBytes = 256 * 1024

    private(set) var hasBegun = false
    private(set) var status = 0
    private(set) var sentBytes = 0
    private var pending: [UInt8] = []
    private var sent = 0
    private var isBroken = false

    /// Whether something waits to be sent.
    var isPending: Bool { sent < pending.count }

    /// Whether the CLI should not be read for now.
    var isFull: Bool { pending.count - sent > Self.highWaterBytes }

    /// Begins the reply: status and header.
    mutating func begin(status: Int, header: [(name: String, value: String)]) {
        hasBegun = true
        self.status = status
        // nginx passes the reason phrase on; without one the status line has none.
        var text = "Status: \(status) \(Self.reasonPhrase(status))\r\n"
        for (name, value) in header { text += "\(name): \(value)\r\n" }
        append(Array((text + "\r\n").utf8))
    }

    /// Begins the reply with all of it: JSON with its length.
    mutating func reply(status: Int, json: JSONValue, header: [(name: String, value: String)] = []) {
        let body = JSONWriter.bytes(json)
        begin(
            status: status,
            header: header + [("Content-Type", "application/json"), ("Content-Length", String(body.count))])
        append(body)
    }

    private static func reasonPhrase(_ status: Int) -> String {
        switch status {
        case 200: "OK"
        case 202: "Accepted"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 410: "Gone"
        case 413: "Content Too Large"
        case 429: "Too Many Requests"
        case 500: "Internal Server Error"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 529: "Overloaded"
        default: ""
        }
    }

    /// Adds to the body.
    mutating func append(_ bytes: [UInt8]) {
        if sent == pending.count {
            pending = bytes
            sent = 0
        } else {
            pending += bytes
        }
    }

    /// Adds to the body in place.
    ///
    /// - Returns: Whether there was anything to add.
    @discardableResult
    mutating func append(_ write: (inout [UInt8]) -> Void) -> Bool {
        let count = pending.count
        write(&pending)
        return pending.count > count
    }

    /// Sends what nginx takes now.
    ///
    /// - Returns: False when the connection is gone.
    mutating func flush(to request: borrowing FastCGIRequest) -> Bool {
        while isPending, !isBroken {
            var entry = pollfd(fd: request.descriptor, events: Int16(POLLOUT), revents: 0)
            guard unsafe poll(&entry, 1, 0) == 1, entry.revents & Int16(POLLOUT) != 0 else {
                isBroken = entry.revents & Int16(POLLERR | POLLHUP | POLLNVAL) != 0
                break
            }
            let end = min(pending.count, sent + FastCGIRequest.maximumWriteBytes)
            isBroken = !request.write(pending[sent..<end])
            sentBytes += end - sent
            sent = end
        }
        if !isPending { pending.removeAll(keepingCapacity: pending.count <= Self.highWaterBytes); sent = 0 }
        return !isBroken
    }

    /// Sends everything, waiting for nginx as long as needed.
    ///
    /// - Returns: False when the connection is gone, or nginx took nothing for `patience`.
    @available(*, noasync, message: "blocks")
    mutating func flushAll(to request: borrowing FastCGIRequest, patience: Duration) -> Bool {
        while flush(to: request) {
            if !isPending { return true }
            var entry = pollfd(fd: request.descriptor, events: Int16(POLLOUT | POLLRDHUP), revents: 0)
            let count = unsafe poll(&entry, 1, CInt(patience.components.seconds * 1000))
            if count == 0 || entry.revents & Int16(POLLRDHUP) != 0 { return false }
        }
        return false
    }
}
