import Admission
import Dialects
import FastCGI

/// How a run's reply is written.
enum ReplyForm {
    /// Event by event.
    case stream(any StreamEncoder)
    /// All at once, from the collected answers and the time they took.
    case whole(([Answer], Duration) -> JSONValue)
    /// Not at all: the caller has been answered already, and fetches the rest later.
    case none
}

/// What a run does beside its reply.
struct RunHooks {
    /// The stored conversation that the run is a part of: of its requests one runs at a time.
    var sessionID: String?
    /// The request as it will be when it has its place, unless the stored conversation changes until then.
    ///
    /// Only for where it should run; nil where nothing can be said.
    var foresee: (RunRequest) -> RunRequest? = { $0 }
    /// Another responder gets the request, and begins from the beginning.
    var leaves: () -> Void = {}
    /// The run has a place.
    var began: () -> Void = {}
    /// Says how the CLI is started; asked before each attempt, the run having its place.
    var prepare: ((LaunchPlan) throws(APIError) -> LaunchPlan)?
    /// Gets each event of the answer.
    var observe: ((RunEvent) -> Void)?
    /// The answer is whole; called before the client learns of it.
    ///
    /// A failure is the run's.
    var keep: ((Answer) throws(APIError) -> Void)?
    /// The CLI has reported what a chat's answer took; it may not, and then nothing is called.
    var reported: ((RunSummary) -> Void)?
    /// The answer is whole and the CLI has ended; called before the client has the answer's end.
    ///
    /// Gets the directory where the CLI stood, says whether the conversation is kept. A failure is the run's.
    var settle: ((Answer, String) throws(APIError) -> Bool)?
    /// Whether the caller wants the run ended; asked several times a second where there is nobody to leave.
    var isCancelled: (() -> Bool)?
}

/// Turns a run's events into its reply, over all attempts, and keeps a silent stream's connection open.
struct RunSink: PumpDelegate {
    /// Between two heartbeats.
    private static let heartbeatInterval = Duration.seconds(15)
    /// Between two looks at whether a run without a client is still wanted.
    private static let cancelInterval = Duration.milliseconds(200)

    private let form: ReplyForm
    /// A stream's, as it goes on: changed in place.
    private var encoder: (any StreamEncoder)?
    private let dialect: Dialect
    private let requestID: String
    private let started: ContinuousClock.Instant
    private let gate: AdmissionGate
    private let headers: ReplyHeaders
    private let choiceCount: Int
    private let hooks: RunHooks
    private(set) var isCancelled = false
    /// The answers that are whole; the last is the one that is being made.
    private var answers = [Answer()]
    private var firstByte: ContinuousClock.Instant?
    private var beat: ContinuousClock.Instant?
    /// Whether something has been written since the clock was looked at.
    private var hasWritten = false
    /// Why the attempt failed.
    private(set) var error: APIError?
    /// Whether something of the answer has been written: then it can't be begun again.
    private(set) var hasContent = false
    /// The answer's end, for after the CLI's.
    private var held: [RunEvent] = []
    /// Whether a tool has run in this attempt: what it did would be done twice.
    private(set) var hasActed = false
    /// Gets the answer when it is whole, before the client does.
    var answered: ((Answer) -> Void)?
    /// The request waits for its first piece.
    var beginning: BeginningRequest?
    /// Where the operator is shown what the request does.
    var stage: RequestStageCell?

    init(
        form: ReplyForm, dialect: Dialect, requestID: String, headers: ReplyHeaders, choiceCount: Int,
        hooks: RunHooks, started: ContinuousClock.Instant, heartbeatAfter: Duration, gate: AdmissionGate
    ) {
        self.form = form
        if case .stream(let encoder) = form { self.encoder = encoder }
        self.dialect = dialect
        self.requestID = requestID
        self.headers = headers
        self.choiceCount = choiceCount
        self.hooks = hooks
        self.started = started
        self.gate = gate
        if case .stream = form { beat = started + heartbeatAfter }
        if case .none = form { beat = started + Self.cancelInterval }
    }

    /// The CLI session's id.
    var sessionID: String { answers[answers.count - 1].sessionID }

    /// Forgets a failed attempt.
    mutating func beginAttempt() {
        error = nil
        answers[answers.count - 1] = Answer()
        held = []
    }

    /// Turns to the next answer of several.
    mutating func beginChoice() { answers.append(Answer()) }

    /// Whether the request wants one answer.
    var isOnlyChoice: Bool { choiceCount == 1 }

    /// Whether the answer that is being made is the last.
    var isLastChoice: Bool { answers.count == choiceCount }

    mutating func take(_ event: RunEvent, request: inout FastCGIRequest, reply: inout ReplyWriter) {
        if case .failed(let failure) = event {
            fail(failure)
            return
        }
        switch event {
        case .rateLimit(let limit): headers.rateLimits.note(limit)
        case .toolResult: hasActed = true
        case .finished(let summary): hooks.reported?(summary)
        default: break
        }
        if hooks.settle != nil, isEnd(event) {
            held.append(event)
        } else {
            pass(event, &request, &reply)
        }
    }

    /// Has a whole answer stored.
    ///
    /// - Returns: False when that failed: the run has.
    private mutating func keep(_ event: RunEvent) -> Bool {
        guard case .answered = event, isLastChoice else { return true }
        answered?(answers[answers.count - 1])
        guard let keep = hooks.keep else { return true }
        do throws(APIError) {
            try keep(answers[answers.count - 1])
            return true
        } catch {
            fail(error)
            return false
        }
    }

    private func isEnd(_ event: RunEvent) -> Bool {
        if case .finished = event { return true }
        return event == .answered
    }

    /// Whether the answer is whole and its end is held back.
    var isHolding: Bool { !held.isEmpty }

    /// The answer that is being made, with what is held back of it.
    var answer: Answer {
        held.reduce(into: answers[answers.count - 1]) { $0.append($1) }
    }

    /// Hands on what was held back.
    mutating func release(isKept: Bool, request: inout FastCGIRequest, reply: inout ReplyWriter) {
        if !isKept { encoder?.conversationIsNotKept() }
        for event in held { pass(event, &request, &reply) }
    }

    private mutating func pass(_ event: RunEvent, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter) {
        hooks.observe?(event)
        if firstByte == nil, event.isContent {
            firstByte = .now
            stage?.enter(.replying)
            beginning?.end()
        }
        switch form {
        case .stream:
            // What a stream has sent need not be kept.
            if !event.isContent || hooks.keep != nil || answered != nil { answers[answers.count - 1].append(event) }
            guard keep(event) else { return }
            write(event, &reply)
        case .whole(let render):
            answers[answers.count - 1].append(event)
            guard keep(event) else { return }
            if case .answered = event, isLastChoice, !reply.hasBegun {
                reply.reply(status: 200, json: render(answers, .now - started), header: headers.all(.now))
                hasContent = true
            }
        case .none:
            answers[answers.count - 1].append(event)
            if hooks.observe != nil, event.isContent { hasContent = true }
            guard keep(event) else { return }
            if case .answered = event, isLastChoice {
                hasContent = true
                beat = nil
            }
            return
        }
        // The answer is out: the client need not wait for the CLI's report and end.
        if case .answered = event, isLastChoice, hasContent, reply.flush(to: request), !reply.isPending {
            request.finish()
            beat = nil
            hasWritten = false
        }
    }

    /// Adds what the event becomes in a stream, where that is anything.
    private mutating func write(_ event: RunEvent, _ reply: inout ReplyWriter) {
        if reply.hasBegun {
            guard reply.append({ encoder?.encode(event, into: &$0) }) else { return }
        } else {
            var out: [UInt8] = []
            encoder?.encode(event, into: &out)
            if out.isEmpty { return }
            beginStream(&reply)
            reply.append(out)
        }
        hasContent = true
        hasWritten = true
    }

    /// When the client must hear something, if it hears nothing before.
    var nextBeat: ContinuousClock.Instant? {
        // Once for all that came together: it costs as much as a delta.
        mutating get {
            if hasWritten { beat = .now + Self.heartbeatInterval }
            hasWritten = false
            return beat
        }
    }

    /// Sends a heartbeat if one is due.
    mutating func beatIfDue(_ reply: inout ReplyWriter) {
        if let nextBeat, nextBeat <= .now { beat(&reply) }
    }

    mutating func beat(_ reply: inout ReplyWriter) {
        if case .none = form {
            isCancelled = hooks.isCancelled?() ?? false
            beat = .now + Self.cancelInterval
            return
        }
        beginStream(&reply)
        var out: [UInt8] = []
        dialect.appendHeartbeat(to: &out)
        reply.append(out)
        gate.countHeartbeat()
        beat = .now + Self.heartbeatInterval
    }

    /// Notes why the attempt failed; the first reason counts.
    mutating func fail(_ failure: APIError) { error = error ?? failure }

    /// Ends a stream that has begun with an error event.
    mutating func tell(_ failure: APIError, reply: inout ReplyWriter) {
        guard reply.hasBegun else { return }
        let requestID = requestID
        reply.append { encoder?.encode(failure: failure, requestID: requestID, into: &$0) }
    }

    private func beginStream(_ reply: inout ReplyWriter) {
        guard !reply.hasBegun else { return }
        reply.begin(
            status: 200,
            header: [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]
                + headers.all(.now))
    }

    /// Hands what is known to the log.
    func report(to log: inout RequestLog) {
        log.firstByte = firstByte
        let known = answers.filter { !$0.id.isEmpty || $0.summary != nil }
        log.usage = known.isEmpty ? nil : known.reduce(TokenUsage()) { $0 + ($1.summary?.usage ?? $1.usage) }
        let costs = answers.compactMap { $0.summary?.costUSD }
        log.costUSD = costs.isEmpty ? nil : costs.reduce(0, +)
        if let model = known.last?.model, !model.isEmpty { log.model = model }
        log.error = error
    }
}
