import Admission
import Dialects
import FastCGI

/// How a run's reply is written.
enum ReplyForm {
    /// Event by event.
    case stream(any StreamEncoder)
    /// All at once, from the collected answer and the time it took.
    case whole((Answer, Duration) -> JSONValue)
}

/// Turns a run's events into its reply, over all attempts, and keeps a silent stream's connection open.
struct RunSink: PumpDelegate {
    /// Between two heartbeats.
    private static let heartbeatInterval = Duration.seconds(15)

    private var form: ReplyForm
    private let dialect: Dialect
    private let requestID: String
    private let ignored: [String]
    private let started: ContinuousClock.Instant
    private let gate: AdmissionGate
    private var answer = Answer()
    private var firstByte: ContinuousClock.Instant?
    private(set) var nextBeat: ContinuousClock.Instant?
    /// Why the attempt failed.
    private(set) var error: APIError?
    /// Whether something of the answer has been written: then it can't be begun again.
    private(set) var hasContent = false
    /// Where the operator is shown what the request does.
    var stage: RequestStageCell?

    init(
        form: ReplyForm, dialect: Dialect, requestID: String, ignored: [String], started: ContinuousClock.Instant,
        heartbeatAfter: Duration, gate: AdmissionGate
    ) {
        self.form = form
        self.dialect = dialect
        self.requestID = requestID
        self.ignored = ignored
        self.started = started
        self.gate = gate
        if case .stream = form { nextBeat = started + heartbeatAfter }
    }

    /// The CLI session's id.
    var sessionID: String { answer.sessionID }

    /// Forgets a failed attempt.
    mutating func beginAttempt() {
        error = nil
        answer = Answer()
    }

    mutating func take(_ event: RunEvent, request: inout FastCGIRequest, reply: inout ReplyWriter) {
        if case .failed(let failure) = event {
            fail(failure)
            return
        }
        if firstByte == nil, case .text = event {
            firstByte = .now
            stage?.enter(.replying)
        }
        switch form {
        case .stream(var encoder):
            if case .text = event {} else { answer.append(event) }
            var out: [UInt8] = []
            encoder.encode(event, into: &out)
            form = .stream(encoder)
            if !out.isEmpty {
                beginStream(&reply)
                reply.append(out)
                hasContent = true
                nextBeat = .now + Self.heartbeatInterval
            }
        case .whole(let render):
            answer.append(event)
            if isComplete(event), !reply.hasBegun {
                reply.reply(status: 200, json: render(answer, .now - started), header: ignoredHeader)
                hasContent = true
            }
        }
        // The answer is out: the client need not wait for the CLI's report and end.
        if event == .answered, hasContent, reply.flush(to: request), !reply.isPending {
            request.finish()
            nextBeat = nil
        }
    }

    /// The direct API's reply has the CLI's report as its result; the others have all they need when the answer is whole.
    private func isComplete(_ event: RunEvent) -> Bool {
        if case .finished = event { return true }
        return event == .answered && dialect != .direct
    }

    /// Sends a heartbeat if one is due.
    mutating func beatIfDue(_ reply: inout ReplyWriter) {
        if let nextBeat, nextBeat <= .now { beat(&reply) }
    }

    mutating func beat(_ reply: inout ReplyWriter) {
        beginStream(&reply)
        var out: [UInt8] = []
        dialect.appendHeartbeat(to: &out)
        reply.append(out)
        gate.countHeartbeat()
        nextBeat = .now + Self.heartbeatInterval
    }

    /// Notes why the attempt failed; the first reason counts.
    mutating func fail(_ failure: APIError) { error = error ?? failure }

    /// Ends a stream that has begun with an error event.
    func tell(_ failure: APIError, reply: inout ReplyWriter) {
        guard reply.hasBegun, case .stream = form else { return }
        var out: [UInt8] = []
        dialect.appendErrorEvent(failure, requestID: requestID, to: &out)
        reply.append(out)
    }

    private func beginStream(_ reply: inout ReplyWriter) {
        guard !reply.hasBegun else { return }
        reply.begin(
            status: 200,
            header: [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]
                + ignoredHeader)
    }

    private var ignoredHeader: [(name: String, value: String)] {
        // Names are the caller's text: only what a header can carry goes into one.
        let names = ignored.filter { $0.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ",") } }
        return names.isEmpty ? [] : [("X-Claude-Ignored", names.prefix(50).joined(separator: ", "))]
    }

    /// Hands what is known to the log.
    func report(to log: inout RequestLog) {
        log.firstByte = firstByte
        log.usage = answer.summary?.usage ?? (answer.id.isEmpty ? nil : answer.usage)
        log.costUSD = answer.summary?.costUSD
        if !answer.model.isEmpty { log.model = answer.model }
        log.error = error
    }
}
