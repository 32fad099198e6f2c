import CLinux
import Dialects
import FastCGI
import Glibc
import Synchronization

/// Answers FastCGI requests as the Messages API would.
final class MessagesResponder: Sendable {
    /// nginx closed the connection, or took nothing for ``longestWait``.
    private struct PeerLeft: Error {}

    /// The API's own limit.
    private static let bodyLimitBytes = 32 << 20
    /// The longest silence, on either side.
    private static let longestWait = Duration.seconds(600)
    /// Ends a batch of events early enough that it fits one write.
    private static let batchBytes = FastCGIRequest.maximumWriteBytes - 512

    private let record: RequestRecord?
    private let counter = StrikeCounter()
    private let isDraining = Atomic(false)

    /// A responder that keeps what it is sent in `record`.
    init(record: RequestRecord?) { self.record = record }

    /// Ends the stalls under way; everything else ends by itself.
    func drain() { isDraining.store(true, ordering: .relaxed) }

    /// Answers one request.
    func respond(to request: borrowing FastCGIRequest) {
        var head = ReplyHead(unique: String(UInt64.random(in: .min ... .max), radix: 36))
        do {
            try serve(request, head)
        } catch let error as UpstreamError {
            head.rateLimit = error.rateLimit
            let body = error.body(requestID: head.requestID)
            try? send(body, status: "\(error.status) \(error.type)", head, to: request)
        } catch {}
    }

    private func serve(_ request: borrowing FastCGIRequest, _ head: ReplyHead) throws {
        let uri = request.parameter("REQUEST_URI") ?? request.parameter("DOCUMENT_URI") ?? ""
        let path = uri.prefix { $0 != "?" }
        let countsTokens = path.hasSuffix("/v1/messages/count_tokens")
        guard countsTokens || path.hasSuffix("/v1/messages") else {
            throw UpstreamError(status: 404, message: "Not found: \(path)")
        }
        guard request.parameter("REQUEST_METHOD") == "POST" else {
            throw UpstreamError(status: 405, message: "Method Not Allowed")
        }
        try checkCredentials(of: request)
        let body = try readBody(of: request)
        let message: UpstreamRequest
        do {
            let json = try JSONParser.parse(body)
            record?.append(path: uri, body: body) { Self.header($0, of: request) }
            message = try UpstreamRequest(json, needsMaxTokens: !countsTokens)
        } catch let error as JSONError {
            throw UpstreamError(status: 400, message: "The request body is not valid JSON: \(error.reason)")
        }
        if countsTokens {
            try send(["input_tokens": .integer(message.inputTokens)], head, to: request)
        } else {
            try answer(message, request, head)
        }
    }

    private static func header(_ name: String, of request: borrowing FastCGIRequest) -> String? {
        request.parameter("HTTP_" + name.uppercased().map { $0 == "-" ? "_" : $0 })
    }

    /// Any key will do, except the one that tests call bad.
    private func checkCredentials(of request: borrowing FastCGIRequest) throws(UpstreamError) {
        let key = Self.header("x-api-key", of: request) ?? Self.header("authorization", of: request)
        guard let key else { throw UpstreamError(status: 401, message: "x-api-key header is required") }
        if key == "bad-key" || key == "Bearer bad-key" {
            throw UpstreamError(status: 401, message: "invalid x-api-key")
        }
    }

    private func readBody(of request: borrowing FastCGIRequest) throws -> [UInt8] {
        do throws(RequestBodyError) {
            return try request.readBody(limitBytes: Self.bodyLimitBytes)
        } catch {
            guard case .tooLarge = error else { throw PeerLeft() }
            throw UpstreamError(status: 413, message: "Request exceeds the maximum size")
        }
    }

    private func answer(_ message: UpstreamRequest, _ request: borrowing FastCGIRequest, _ head: ReplyHead) throws {
        var directives = Directives(turn: message.turn)
        let session = Self.header("x-claude-code-session-id", of: request) ?? ""
        if let failure = directives.failure, counter.strikes(failure.recurrence, session: session) {
            throw UpstreamError.ordered(failure.status)
        }
        if let limit = directives.rateLimit, limit.isReached {
            let reason = "This request would exceed your account's rate limit. Please try again later."
            throw UpstreamError(status: 429, message: reason, rateLimit: limit)
        }
        if let fault = directives.fault, !counter.strikes(fault.recurrence, session: session) { directives.fault = nil }
        var head = head
        head.rateLimit = directives.rateLimit
        let plan = AnswerPlan(message, directives, unique: head.unique)
        if message.isStreaming {
            try stream(plan, head, to: request)
        } else {
            try sendWhole(plan, head, to: request)
        }
    }

    private func stream(_ plan: AnswerPlan, _ head: ReplyHead, to request: borrowing FastCGIRequest) throws {
        var stream = AnswerStream(plan, requestID: head.requestID)
        // nginx breaks the client's connection when a reply ends before its announced length, and only then: without
        // a length it takes even a vanished upstream for the end of the reply (seen with 1.22 and buffering off).
        let length = plan.fault?.kind == .drop ? Int(Int32.max) : nil
        var out = head.bytes(type: "text/event-stream; charset=utf-8", length: length)
        out.reserveCapacity(2 * FastCGIRequest.maximumWriteBytes)
        // Waits are counted from here and not from the last event, so that the pace is the one that was ordered.
        var due = ContinuousClock.now
        while true {
            switch stream.next(into: &out) {
            case .proceed:
                if out.count >= Self.batchBytes { try flush(&out, to: request) }
            case .pause(let duration):
                try flush(&out, to: request)
                due += duration
                try wait(until: due, request)
            case .end: return try flush(&out, to: request)
            case .stall:
                try flush(&out, to: request)
                return try stall(request)
            }
        }
    }

    /// The answer without a stream.
    ///
    /// A fault strikes here as well, since the CLI asks this way when a stream has failed.
    private func sendWhole(_ plan: AnswerPlan, _ head: ReplyHead, to request: borrowing FastCGIRequest) throws {
        try wait(until: .now + plan.wholeDelay, request)
        switch plan.fault?.kind {
        case nil: try send(plan.message, head, to: request)
        case .error: throw UpstreamError.ordered(529)
        case .stall: try stall(request)
        case .cut, .drop:
            let body = JSONWriter.bytes(plan.message)
            let half = body.prefix(body.count / 2)
            let length = plan.fault?.kind == .drop ? body.count : half.count
            var out = head.bytes(type: "application/json", length: length) + half
            try flush(&out, to: request)
        }
    }

    private func send(
        _ body: JSONValue, status: String = "200 OK", _ head: ReplyHead, to request: borrowing FastCGIRequest
    ) throws(PeerLeft) {
        let body = JSONWriter.bytes(body)
        var out = head.bytes(status: status, type: "application/json", length: body.count) + body
        try flush(&out, to: request)
    }

    private func stall(_ request: borrowing FastCGIRequest) throws(PeerLeft) {
        let end = ContinuousClock.now + Self.longestWait
        while ContinuousClock.now < end, !isDraining.load(ordering: .relaxed) {
            try wait(until: .now + .milliseconds(200), request)
        }
    }

    /// Sleeps while the peer is there.
    private func wait(until due: ContinuousClock.Instant, _ request: borrowing FastCGIRequest) throws(PeerLeft) {
        while true {
            let left = due - .now
            guard left > .zero else { return }
            _ = try poll(request, for: 0, atMost: left)
        }
    }

    private func flush(_ out: inout [UInt8], to request: borrowing FastCGIRequest) throws(PeerLeft) {
        var start = 0
        while start < out.count {
            guard try poll(request, for: POLLOUT, atMost: Self.longestWait) else { throw PeerLeft() }
            let end = min(out.count, start + FastCGIRequest.maximumWriteBytes)
            guard request.write(out[start..<end]) else { throw PeerLeft() }
            start = end
        }
        out.removeAll(keepingCapacity: true)
    }

    /// Waits for `events`; false when the time is over, or a signal came before.
    private func poll(
        _ request: borrowing FastCGIRequest, for events: CInt, atMost limit: Duration
    ) throws(PeerLeft) -> Bool {
        var entry = pollfd(fd: request.descriptor, events: Int16(events | POLLRDHUP), revents: 0)
        let (seconds, attoseconds) = limit.components
        var time = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
        let count = unsafe ppoll(&entry, 1, &time, nil)
        if count > 0, CInt(entry.revents) & (POLLRDHUP | POLLHUP | POLLERR) != 0 { throw PeerLeft() }
        return count > 0
    }
}
