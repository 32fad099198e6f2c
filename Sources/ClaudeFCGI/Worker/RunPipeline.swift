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
    let spares: SparePool
    let live: LivePool
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
        var foreseen: ContinuedConversation?
        // Not for a run in the background: its caller has been answered.
        if runRequests.count == 1, settings.responders > 1, request.descriptor >= 0, !request.isHandedOver {
            if live.isOn, let whole = hooks.foresee(first) {
                foreseen = live.continued(by: whole, model: named, client: client.name)
            }
            if let owner = otherOwner(of: first, foreseen) {
                hooks.leaves()
                log.isHandedOver = request.handOver(to: owner)
                log.isAbandoned = !log.isHandedOver
                return
            }
        }
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
                try run(plan, named, client.name, foreseen, holding: permit, hooks, &sink, &request, &reply, &log)
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

    /// The responder that has the process for a request, where it is another one: that of the conversation, or a spare.
    private func otherOwner(of request: RunRequest, _ foreseen: ContinuedConversation?) -> Int32? {
        if let conversation = foreseen?.hash, let owner = live.owner(of: conversation) {
            return owner.isSelf ? nil : owner.pid
        }
        return request.fitsWarmProcess ? spares.otherOwner : nil
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
        _ plan: LaunchPlan, _ model: ResolvedModel, _ client: String, _ foreseen: ContinuedConversation?,
        holding permit: borrowing AdmissionPermit, _ hooks: RunHooks, _ sink: inout RunSink,
        _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let started = ContinuousClock.now
        log.admitted = started
        sink.stage = permit.stage
        let limit = min(settings.requestTimeout, plan.request.timeout ?? settings.requestTimeout)
        let deadline = started + limit
        var attempts = 0
        var delay = Self.firstRetryDelay
        var mayHaveWaited = true
        var continued = foreseen
        while true {
            sink.beginAttempt()
            var plan = try hooks.prepare?(plan) ?? plan
            plan.retries = settings.retryMaxAttempts - attempts - 1
            if continued?.request != plan.request {
                continued = live.continued(by: plan.request, model: model, client: client)
            }
            let worker = try worker(for: plan, model, continued, mayHaveWaited: mayHaveWaited, permit)
            let hadWaited = worker.hasWaited
            let (end, count) = attempt(
                worker, plan, continued, permit, deadline, hooks, &sink, &request, &reply, &log)
            if end == .timedOut { sink.fail(timeoutError(limit)) }
            // A process that died or hung while it waited says nothing of the request.
            if hadWaited, sink.error?.kind == .cli, end == .ended || end == .silent, !sink.hasContent, !log.isAbandoned
            {
                mayHaveWaited = false
                continue
            }
            mayHaveWaited = false
            attempts += count
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

    /// The process that answers: the one that has the conversation, a spare, or a new one.
    ///
    /// - Parameter mayHaveWaited: False after a process that had waited turned out to be of no use.
    private func worker(
        for plan: LaunchPlan, _ model: ResolvedModel, _ continued: ContinuedConversation?, mayHaveWaited: Bool,
        _ permit: borrowing AdmissionPermit
    ) throws(APIError) -> ClaudeWorker {
        permit.stage.enter(.starting)
        if mayHaveWaited {
            if let conversation = continued?.hash, let worker = live.take(conversation) { return worker }
            if let worker = spares.take(for: plan, model: model) { return worker }
        }
        let process = try launcher.start(plan)
        let conversation = ClaudeConversation(process.request, model: model.name, resolvedModel: model.fullID)
        return ClaudeWorker(process, conversation)
    }

    /// One turn of a CLI process.
    ///
    /// - Returns: How it ended, and how many attempts it made upstream.
    private func attempt(
        _ worker: ClaudeWorker, _ plan: LaunchPlan, _ continued: ContinuedConversation?,
        _ permit: borrowing AdmissionPermit, _ deadline: ContinuousClock.Instant, _ hooks: RunHooks,
        _ sink: inout RunSink, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) -> (PumpEnd, Int) {
        let pid = worker.process.child.pid
        log.cliPID = pid
        permit.record(
            processGroup: pid, startTime: ProcessIdentity.startTime(of: pid) ?? 0,
            runSeconds: worker.process.id.seconds,
            runCount: worker.process.id.count)
        permit.stage.enter(.running)
        let beginning = BeginningRequest(spares)
        sink.beginning = beginning
        defer { beginning.end() }
        let kept = KeptConversation()
        if let continued, sink.isOnlyChoice {
            sink.answered = { [live] answer in
                guard answer.stopReason == .endTurn || answer.stopReason == .toolUse else { return }
                let hash = continued.hash(with: answer)
                kept.hash = hash
                // Before the client has the end of the answer: its next request may come at once.
                live.expect(hash)
            }
        }
        let end = worker.run(plan.request, request: &request, reply: &reply, deadline: deadline, delegate: &sink)
        sink.answered = nil
        let retries = worker.conversation.retryCount
        gate.countRetries(retries)
        permit.stage.enter(.finishing)
        log.isAbandoned = end == .abandoned
        let isWhole = end == .ended && sink.error == nil
        let isKept = isWhole && worker.conversation.isContinuable && kept.hash != nil
        // At once, before the reply is sent: the CLI would ask the model again within milliseconds. It keeps nothing that
        // a gentle end would save.
        if worker.conversation.isCut, !isKept { worker.signalGroup(SIGKILL) }
        if isWhole, sink.isLastChoice, !sink.isHolding { finishReply(&request, &reply, &log) }
        if let hash = kept.hash {
            if isKept {
                // The client's word may have been that it left before it had all.
                if !log.isAbandoned, live.keep(worker, as: hash) {
                    log.cliEnd = "kept"
                    return (end, 1 + retries)
                }
                if log.isAbandoned { live.disappoint(hash) }
            } else {
                live.disappoint(hash)
            }
        }
        log.cliEnd = endProcess(worker, end).description
        if isWhole, sink.isHolding {
            // The CLI's record is whole now; it is stored before the client has the end of the answer.
            do throws(APIError) {
                let isKept = try hooks.settle?(sink.answer, worker.process.directory) ?? false
                sink.release(isKept: isKept, request: &request, reply: &reply)
                finishReply(&request, &reply, &log)
            } catch {
                sink.fail(error)
            }
        }
        worker.process.remains.remove(sessionID: sink.sessionID)
        if sink.error != nil, !worker.errorTail.isEmpty {
            log.cliErrors = String(decoding: worker.errorTail, as: UTF8.self)
        }
        return (end, 1 + retries)
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

    private func endProcess(_ worker: ClaudeWorker, _ end: PumpEnd) -> ExitStatus {
        switch end {
        case .ended where worker.conversation.isCut: worker.end(patience: .zero, grace: .zero)
        case .ended: worker.end(patience: Self.endPatience, grace: Self.timeoutGrace)
        case .silent: worker.end(patience: .zero, grace: .zero)
        case .abandoned: worker.end(patience: .zero, grace: Self.abandonGrace)
        case .timedOut: worker.end(patience: .zero, grace: Self.timeoutGrace)
        }
    }
}

/// What the pool was told to expect of a turn.
private final class KeptConversation {
    var hash: LiveHash?
}
