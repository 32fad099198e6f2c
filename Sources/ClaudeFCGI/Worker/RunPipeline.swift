// The path of one run, top to bottom: waiting, starting, running, replying, finishing (DESIGN.md, "The path of one request").
//
// A transient failure is tried again while nothing of the answer has left, in the same place, within the same deadline. The
// CLI asks its upstream again by itself; what it has used up of the attempts is not used again here, so the two don't
// multiply: here only a CLI that died or a stream that broke off leads to a new process.

import Admission
import Dialects
import FastCGI
import Glibc
import Logging
import ProcessControl

/// A model in the CLI's words, and its full id where that is known.
struct ResolvedModel: Sendable {
    let name: String?
    let fullID: String?
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
    /// The wait before the second attempt; it doubles with each further one.
    private static let firstRetryDelay = Duration.seconds(1)

    let settings: Settings
    let gate: AdmissionGate
    let launcher: ClaudeLauncher
    let models: ModelCatalogStore
    let rateLimits = RateLimitStore()

    /// Runs a request and replies to it.
    ///
    /// - Parameter runRequests: One a choice of the reply; they run one after the other, each in a place of its own.
    /// - Throws: ``APIError`` while nothing has been sent; later failures are told in the stream.
    func run(
        _ runRequests: [RunRequest], as form: ReplyForm, route: Route, client: Client,
        request: inout FastCGIRequest, reply: inout ReplyWriter, log: inout RequestLog, hooks: RunHooks = RunHooks()
    ) throws(APIError) {
        guard let first = runRequests.first else { return }
        let catalog = models.catalogWithoutWaiting()
        let model: String? =
            if let name = first.model ?? settings.defaultModel { try catalog.resolve(name) } else { nil }
        let named = ResolvedModel(name: model, fullID: catalog.fullID(of: model))
        let headers = ReplyHeaders(
            dialect: route.dialect, requestID: log.requestID, started: log.started, ignored: first.ignoredParameters,
            sessionID: hooks.sessionID, rateLimits: rateLimits)
        var sink = RunSink(
            form: form, dialect: route.dialect, requestID: log.requestID, headers: headers,
            choiceCount: runRequests.count, hooks: hooks, started: log.started, heartbeatAfter: settings.heartbeatAfter,
            gate: gate)
        let place = AdmissionRequest(
            client: client.admission, route: UInt32(route.number), model: model ?? "",
            session: hooks.sessionID.map { AdmissionRequest.sessionNumber($0) } ?? 0)
        do throws(APIError) {
            for (index, runRequest) in runRequests.enumerated() {
                if index > 0 { sink.beginChoice() }
                let permit = try admit(place, &request, &reply, &sink, &log)
                if index == 0 { hooks.began() }
                let plan = LaunchPlan(
                    runRequest, roots: client.directories(settings), chatDirectory: settings.chatToolsDirectory)
                try run(plan, named, holding: permit, hooks, &sink, &request, &reply, &log)
                if sink.error != nil || log.isAbandoned { break }
            }
        } catch {
            // After a heartbeat the status has been sent: the failure is told in the stream.
            guard reply.hasBegun, !log.isAbandoned else { throw error }
            sink.tell(error, reply: &reply)
            log.error = error
            finishReply(&request, &reply, &log)
        }
    }

    private func admit(
        _ place: AdmissionRequest, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ sink: inout RunSink,
        _ log: inout RequestLog
    ) throws(APIError) -> AdmissionPermit {
        do throws(AdmissionError) {
            return try gate.admit(place, until: .now + settings.queueTimeout) {
                sink.beatIfDue(&reply)
                return request.isAbandoned || sink.isCancelled || !reply.flush(to: request)
            }
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

    /// Makes attempts until one succeeds, or fails for good.
    ///
    /// The place is held until the last process has ended: what is counted is CLIs.
    private func run(
        _ plan: LaunchPlan, _ model: ResolvedModel, holding permit: borrowing AdmissionPermit, _ hooks: RunHooks,
        _ sink: inout RunSink,
        _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let started = ContinuousClock.now
        log.admitted = started
        sink.stage = permit.stage
        let limit = min(settings.requestTimeout, plan.request.timeout ?? settings.requestTimeout)
        let deadline = started + limit
        var attempts = 0
        var delay = Self.firstRetryDelay
        while true {
            sink.beginAttempt()
            var plan = try hooks.prepare?(plan) ?? plan
            plan.retries = settings.retryMaxAttempts - attempts - 1
            let end: PumpEnd
            (end, attempts) = try attempt(
                plan, model, permit, deadline, after: attempts, hooks, &sink, &request, &reply, &log)
            if end == .timedOut { sink.fail(timeoutError(limit)) }
            log.attempts = attempts
            guard let error = sink.error, error.isTransient, !sink.hasContent, !sink.hasActed, !log.isAbandoned,
                attempts < settings.retryMaxAttempts, ContinuousClock.now + delay < deadline
            else { break }
            permit.stage.enter(.retrying)
            gate.countRetries(1)
            guard wait(Self.jittered(delay), &request, &reply, &sink) else {
                log.isAbandoned = true
                break
            }
            delay = delay * 2
        }
        sink.report(to: &log)
        guard let error = sink.error, !log.isAbandoned else { return }
        // Told in the stream only now: until here another attempt could have succeeded.
        if !reply.hasBegun { throw error }
        sink.tell(error, reply: &reply)
        finishReply(&request, &reply, &log)
    }

    /// One CLI process from its start to its end.
    ///
    /// - Returns: How it ended, and how many attempts there were upstream by then.
    private func attempt(
        _ plan: LaunchPlan, _ model: ResolvedModel, _ permit: borrowing AdmissionPermit,
        _ deadline: ContinuousClock.Instant, after attempts: Int, _ hooks: RunHooks, _ sink: inout RunSink,
        _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) -> (PumpEnd, Int) {
        permit.stage.enter(.starting)
        var process = try launcher.start(plan)
        log.cliPID = process.child.pid
        permit.record(
            processGroup: process.child.pid, startTime: ProcessIdentity.startTime(of: process.child.pid) ?? 0,
            runSeconds: process.id.seconds, runCount: process.id.count)
        permit.stage.enter(.running)
        var conversation = ClaudeConversation(process.request, model: model.name, resolvedModel: model.fullID)
        var pump = RunPump()
        let end = pump.run(
            &conversation, child: &process.child, request: &request, reply: &reply, deadline: deadline, delegate: &sink)
        gate.countRetries(conversation.retryCount)
        permit.stage.enter(.finishing)
        // At once, before the reply is sent: the CLI would ask the model again within milliseconds. It keeps nothing that
        // a gentle end would save.
        if conversation.isCut { process.child.signalGroup(SIGKILL) }
        log.isAbandoned = end == .abandoned
        let isWhole = end == .ended && sink.error == nil
        if isWhole, sink.isLastChoice, !sink.isHolding { finishReply(&request, &reply, &log) }
        log.cliEnd = endProcess(&process, end, isCut: conversation.isCut).description
        if isWhole, sink.isHolding {
            // The CLI's record is whole now; it is stored before the client has the end of the answer.
            do throws(APIError) {
                let isKept = try hooks.settle?(sink.answer, process.directory) ?? false
                sink.release(isKept: isKept, request: &request, reply: &reply)
                finishReply(&request, &reply, &log)
            } catch {
                sink.fail(error)
            }
        }
        process.remains.remove(sessionID: sink.sessionID)
        if sink.error != nil, !pump.errorTail.isEmpty {
            log.cliErrors = String(decoding: pump.errorTail, as: UTF8.self)
        }
        return (end, attempts + 1 + conversation.retryCount)
    }

    /// Waits while watching the client.
    ///
    /// - Returns: False when it left.
    private func wait(
        _ delay: Duration, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ sink: inout RunSink
    ) -> Bool {
        let end = ContinuousClock.now + delay
        while true {
            sink.beatIfDue(&reply)
            if sink.isCancelled || !reply.flush(to: request) { return false }
            let left = min(end, sink.nextBeat ?? end) - .now
            if end <= .now { return true }
            var entry = pollfd(fd: request.descriptor, events: Int16(POLLRDHUP), revents: 0)
            if unsafe poll(&entry, 1, max(left, .zero).pollMilliseconds) > 0 { return false }
        }
    }

    /// ±15 %, so that requests which failed together don't come back together.
    private static func jittered(_ delay: Duration) -> Duration { delay * Double.random(in: 0.85...1.15) }

    private func timeoutError(_ limit: Duration) -> APIError {
        let whose = limit < settings.requestTimeout ? "the request's `timeoutMs`" : "the service's REQUEST_TIMEOUT_MS"
        return APIError(
            .timeout,
            "The run took longer than \(Int(limit.milliseconds)) ms, \(whose), and was ended. Ask for less at once.")
    }

    /// Sends the rest of a reply that has begun, so that the client does not wait for the process to end.
    private func finishReply(_ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog) {
        // Nothing can follow a request that is finished.
        guard !log.isAbandoned, reply.hasBegun, request.descriptor >= 0 else { return }
        if !reply.flushAll(to: request, patience: Self.clientPatience) { log.isAbandoned = true }
        request.finish()
    }

    /// - Parameter isCut: The answer is whole, and the CLI would go on asking the model.
    private func endProcess(_ process: inout ClaudeProcess, _ end: PumpEnd, isCut: Bool) -> ExitStatus {
        switch end {
        case .ended where isCut: process.child.terminate(patience: .zero, grace: .zero)
        case .ended: process.child.terminate(patience: Self.endPatience, grace: Self.timeoutGrace)
        case .abandoned: process.child.terminate(patience: .zero, grace: Self.abandonGrace)
        case .timedOut: process.child.terminate(patience: .zero, grace: Self.timeoutGrace)
        }
    }
}
