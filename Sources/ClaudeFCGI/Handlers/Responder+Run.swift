import Admission
import Dialects
import FastCGI
import Glibc
import ProcessControl
import Sessions

extension Responder {
    /// `POST /api/run`.
    @inline(never) func run(
        _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let policy = client.policy(settings)
        var run = try decode(request, &log) { json throws(APIError) in try DirectRequest.decode(json, policy: policy) }
        // Said before the run has waited for its place; looked at again when the process is started.
        var directory: String?
        if case .agent(let agent) = run.profile {
            let roots = client.directories(settings)
            if let named = agent.workingDirectory { directory = try WorkingDirectory.resolve(named, roots: roots) }
            for (index, added) in agent.addedDirectories.enumerated() {
                _ = try WorkingDirectory.resolve(added, parameter: "addDirs[\(index)]", roots: roots)
            }
        }
        log.isStream = run.isStreaming
        log.ignoredParameters = run.ignoredParameters.map { String($0.prefix(40)) }
        let session = try SessionRun(&run, of: client, in: sessions)
        defer { session.end() }
        let id = run.isBackground ? "run_" + UUIDText.random().filter { $0 != "-" } : UUIDText.random()
        let runID = RunID.next()
        if directory == nil, case .agent(let agent) = run.profile { directory = agent.workingDirectory }
        let context = DirectContext(
            id: id, sessionID: session.id,
            workingDirectory: directory ?? session.ownDirectory ?? "\(settings.freshDirectory)/\(runID.text)")
        var hooks = session.hooks()
        let prepare = hooks.prepare
        hooks.prepare = { plan throws(APIError) in
            var plan = try prepare?(plan) ?? plan
            plan.id = runID
            return plan
        }
        if run.isBackground {
            return try runInBackground(run, context, hooks, client, &request, &reply, &log)
        }
        var isKept = true
        let settle = hooks.settle
        if let settle {
            hooks.settle = { answer, directory throws(APIError) in
                isKept = try settle(answer, directory)
                return isKept
            }
        }
        let started = log.started
        let form: ReplyForm =
            run.isStreaming
            ? .stream(DirectStream(context: context) { ContinuousClock.now - started })
            : .whole { answers, duration in
                var context = context
                if !isKept { context.sessionID = nil }
                return DirectReply.whole(answers[0], context: context, duration: duration)
            }
        try pipeline.run(
            [run], as: form, route: .run, client: client, request: &request, reply: &reply, log: &log, hooks: hooks)
    }

    /// Answers at once, and goes on without the client on this thread.
    private func runInBackground(
        _ run: RunRequest, _ context: DirectContext, _ sessionHooks: RunHooks, _ client: Client,
        _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        if let model = run.model { _ = try models.catalogWithoutWaiting().resolve(model) }
        let id = context.id
        let started = log.started
        let events: RunEventLog
        do throws(FileError) {
            try Files.makeDirectory(settings.backgroundDirectory)
            events = try RunEventLog(
                path: runs.eventsPath(id),
                encoder: DirectStream(context: context, numbersEvents: true) { ContinuousClock.now - started })
        } catch {
            throw APIError(
                .internal, "The run can't be kept on the server. Leave `background` out, or try again later.",
                cause: "\(error)")
        }
        let now = WallClock.now.seconds
        var row = StoredRun(
            id: id, owner: client.name, sessionID: context.sessionID, state: .queued, created: now, lastUsed: now,
            progress: StateStore.text(DirectProgress().json))
        row.runnerPID = getpid()
        row.runnerStartTime = ProcessIdentity.startTime(of: getpid())
        do throws(APIError) {
            try runs.use { store throws(SessionStoreError) in try store.insert(row) }
        } catch {
            Files.remove(runs.eventsPath(id))
            throw error
        }
        reply.reply(
            status: 202,
            json: ["id": .string(id), "sessionId": context.sessionID.map { .string($0) } ?? .null, "state": "queued"])
        _ = reply.flushAll(to: request, patience: .seconds(60))
        request.finish()

        let progress = BackgroundProgress(id: id, runs: runs)
        var hooks = sessionHooks
        hooks.began = { progress.write() }
        hooks.observe = { event in
            events.append(event)
            progress.note(event)
        }
        if let settle = sessionHooks.settle {
            hooks.settle = { answer, directory throws(APIError) in
                let isKept = try settle(answer, directory)
                if !isKept { events.conversationIsNotKept() }
                return isKept
            }
        }
        hooks.isCancelled = { [runs] in
            (try? runs.use { store throws(SessionStoreError) in try store.isCancelRequested(id: id) }) ?? false
        }
        var nothing = ReplyWriter()
        do throws(APIError) {
            try pipeline.run(
                [run], as: .none, route: .run, client: client, request: &request, reply: &nothing, log: &log,
                hooks: hooks)
        } catch {
            log.error = error
        }
        let isCancelled = log.isAbandoned
        // Nobody left: the run was ended on purpose.
        log.isAbandoned = false
        progress.write()
        if let result = events.reply, log.error == nil {
            runs.finish(id, .completed(result: StateStore.text(result)))
            return
        }
        let error =
            isCancelled
            ? APIError(.cancelled, "The run was cancelled.")
            : log.error ?? APIError(.internal, "The run ended without an answer. Send the request again.")
        events.append(failure: error, requestID: log.requestID)
        runs.finish(id, .ended(by: error))
    }
}

/// What a background run has come to, and what is shown of it: written seldom, because each time is a write to the database.
private final class BackgroundProgress {
    private static let interval = Duration.milliseconds(500)

    private let id: String
    private let runs: StoredRuns
    private var progress = DirectProgress()
    private var written = ContinuousClock.now

    init(id: String, runs: StoredRuns) {
        self.id = id
        self.runs = runs
    }

    func note(_ event: RunEvent) {
        progress.append(event)
        if ContinuousClock.now - written > Self.interval { write() }
    }

    func write() {
        written = .now
        runs.note(id, progress.json)
    }
}
