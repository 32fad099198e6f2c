// The path of one run, top to bottom: waiting, starting, running, replying, finishing (DESIGN.md, "The path of one request").

import Admission
import Dialects
import FastCGI
import Glibc
import Logging
import ProcessControl

/// How a run's reply is written.
enum ReplyForm {
    /// Event by event.
    case stream(any StreamEncoder)
    /// All at once, from the collected answer and the time it took.
    case whole((Answer, Duration) -> JSONValue)
}

/// Runs requests on the CLI.
struct RunPipeline: Sendable {
    /// TERM to KILL when nobody waits for the process any more: it ends within 100 ms of the caller's leaving.
    private static let abandonGrace = Duration.milliseconds(50)
    /// TERM to KILL when a run is over its time.
    private static let timeoutGrace = Duration.seconds(2)
    /// How long the CLI may take to end by itself when its standard input is closed.
    private static let endPatience = Duration.milliseconds(500)
    /// How long nginx may take nothing of a reply that is ready.
    private static let clientPatience = Duration.seconds(60)

    let settings: Settings
    let gate: AdmissionGate
    let launcher: ClaudeLauncher
    let models: ModelCatalogStore

    /// Runs a request and replies to it.
    ///
    /// - Throws: ``APIError`` while nothing has been sent; later failures are told in the stream.
    func run(
        _ runRequest: RunRequest, as form: ReplyForm, dialect: Dialect, request: inout FastCGIRequest,
        reply: inout ReplyWriter, log: inout RequestLog
    ) throws(APIError) {
        let model: String? =
            if let name = runRequest.model ?? settings.defaultModel {
                try models.catalogWithoutWaiting().resolve(name)
            } else {
                nil
            }
        let permit = try admit(request, &log)
        try run(runRequest, model, holding: permit, form, dialect, &request, &reply, &log)
    }

    /// The place is held until the process has ended: what is counted is CLIs.
    private func run(
        _ runRequest: RunRequest, _ model: String?, holding permit: borrowing AdmissionPermit, _ form: ReplyForm,
        _ dialect: Dialect, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let started = ContinuousClock.now
        log.admitted = started
        var process = try launcher.start(runRequest.profile)
        log.cliPID = process.child.pid
        permit.record(
            processGroup: process.child.pid, startTime: ProcessIdentity.startTime(of: process.child.pid) ?? 0,
            runSeconds: process.id.seconds, runCount: process.id.count)
        var conversation = ClaudeConversation(runRequest, model: model)
        var pump = RunPump()
        var sink = RunSink(
            form: form, dialect: dialect, requestID: log.requestID, ignored: runRequest.ignoredParameters)
        let end = pump.run(
            &conversation, child: &process.child, request: &request, reply: &reply,
            deadline: started + settings.requestTimeout
        ) { event, request, reply in
            sink.take(event, request: &request, reply: &reply, started: started)
        }
        if end == .timedOut { sink.fail(timeoutError(), reply: &reply) }
        log.isAbandoned = end == .abandoned
        finishReply(end, &request, &reply, &log)
        sink.report(to: &log)
        log.cliEnd = endProcess(&process, end).description
        process.remains.remove(sessionID: sink.sessionID)
        if sink.error != nil, !pump.errorTail.isEmpty {
            log.cliErrors = String(decoding: pump.errorTail, as: UTF8.self)
        }
        if let error = sink.error, !reply.hasBegun, end != .abandoned { throw error }
    }

    private func admit(_ request: borrowing FastCGIRequest, _ log: inout RequestLog) throws(APIError) -> AdmissionPermit
    {
        do throws(AdmissionError) {
            return try gate.admit(until: .now + settings.queueTimeout) { request.isAbandoned }
        } catch {
            switch error {
            case .queueFull(let retryAfter):
                throw APIError(
                    .queueFull, "All places to run and to wait are taken. Try again later.",
                    retryAfterSeconds: Int(retryAfter.components.seconds))
            case .timedOut:
                throw APIError(
                    .queueTimeout, "The request waited for a free place as long as it may. Try again later.",
                    retryAfterSeconds: 10)
            case .draining:
                throw APIError(
                    .unavailable, "This part of the service is being restarted. Send the request again.",
                    retryAfterSeconds: 1)
            case .abandoned:
                log.isAbandoned = true
                throw APIError(.timeout, "The client left while the request waited.")
            }
        }
    }

    private func timeoutError() -> APIError {
        APIError(
            .timeout,
            "The run took longer than \(Int(settings.requestTimeout.milliseconds)) ms, the service's limit "
                + "(REQUEST_TIMEOUT_MS), and was ended. Ask for less at once.")
    }

    /// Sends the rest of a reply that has begun, so that the client does not wait for the process to end.
    private func finishReply(
        _ end: PumpEnd, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) {
        guard end != .abandoned, reply.hasBegun else { return }
        if !reply.flushAll(to: request, patience: Self.clientPatience) { log.isAbandoned = true }
        request.finish()
    }

    private func endProcess(_ process: inout ClaudeProcess, _ end: PumpEnd) -> ExitStatus {
        switch end {
        case .ended: process.child.terminate(patience: Self.endPatience, grace: Self.timeoutGrace)
        case .abandoned: process.child.terminate(patience: .zero, grace: Self.abandonGrace)
        case .timedOut: process.child.terminate(patience: .zero, grace: Self.timeoutGrace)
        }
    }
}

/// Turns a run's events into its reply.
private struct RunSink {
    private var form: ReplyForm
    private let dialect: Dialect
    private let requestID: String
    private let ignored: [String]
    private var answer = Answer()
    private var firstByte: ContinuousClock.Instant?
    private(set) var error: APIError?

    init(form: ReplyForm, dialect: Dialect, requestID: String, ignored: [String]) {
        self.form = form
        self.dialect = dialect
        self.requestID = requestID
        self.ignored = ignored
    }

    mutating func take(
        _ event: RunEvent, request: inout FastCGIRequest, reply: inout ReplyWriter, started: ContinuousClock.Instant
    ) {
        if case .failed(let failure) = event {
            fail(failure, reply: &reply)
            return
        }
        if firstByte == nil, case .text = event { firstByte = .now }
        if case .text = event, case .stream = form {} else { answer.append(event) }
        switch form {
        case .stream(var encoder):
            var out: [UInt8] = []
            encoder.encode(event, into: &out)
            form = .stream(encoder)
            guard !out.isEmpty else { return }
            if !reply.hasBegun {
                reply.begin(
                    status: 200,
                    header: [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]
                        + ignoredHeader)
            }
            reply.append(out)
        case .whole(let render):
            let isWhole = event == .answered
            if case .finished = event, !reply.hasBegun {
                begin(render(answer, .now - started), &reply)
            } else if isWhole, !waitsForSummary {
                begin(render(answer, .now - started), &reply)
            }
        }
        // The answer is out: the client need not wait for the CLI's report and end.
        if event == .answered, reply.hasBegun, reply.flush(to: request), !reply.isPending { request.finish() }
    }

    /// The direct API's reply has the last message of the CLI's report as its result.
    private var waitsForSummary: Bool { dialect == .direct }

    private var ignoredHeader: [(name: String, value: String)] {
        // Names are the caller's text: only what a header can carry goes into one.
        let names = ignored.filter { $0.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ",") } }
        return names.isEmpty ? [] : [("X-Claude-Ignored", names.prefix(50).joined(separator: ", "))]
    }

    private mutating func begin(_ json: JSONValue, _ reply: inout ReplyWriter) {
        reply.reply(status: 200, json: json, header: ignoredHeader)
    }

    /// Notes a failure; a stream that has begun is told of it in its own terms.
    mutating func fail(_ failure: APIError, reply: inout ReplyWriter) {
        guard error == nil else { return }
        error = failure
        if reply.hasBegun, case .stream = form {
            var out: [UInt8] = []
            dialect.appendErrorEvent(failure, requestID: requestID, to: &out)
            reply.append(out)
        }
    }

    var sessionID: String { answer.sessionID }

    func report(to log: inout RequestLog) {
        log.firstByte = firstByte
        log.usage = answer.summary?.usage ?? (answer.id.isEmpty ? nil : answer.usage)
        log.costUSD = answer.summary?.costUSD
        if !answer.model.isEmpty { log.model = answer.model }
        log.error = error
    }
}
