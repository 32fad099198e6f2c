import Admission
import Dialects
import FastCGI
import Glibc
import Logging
import Synchronization

/// Answers requests: one call a request, on its thread.
final class Responder: Sendable {
    let settings: Settings
    private let logger: Logger
    private let keys: KeyRingStore
    private let gate: AdmissionGate
    let models: ModelCatalogStore
    let pipeline: RunPipeline
    let responses: StoredResponses
    let sessions: StoredSessions
    let runs: StoredRuns
    let followers: Followers
    private let spares: SparePool
    private let live: LivePool
    /// Held while processes are ended, so that a second call waits for the first.
    private let draining = Mutex<Void>(())
    private let started = ContinuousClock.now
    /// Requests that have ended.
    private let endedCount = Atomic<Int>(0)

    init(
        settings: Settings, keys: KeyRingStore, gate: AdmissionGate, launcher: ClaudeLauncher,
        models: ModelCatalogStore,
        logger: Logger
    ) {
        self.settings = settings
        self.logger = logger
        self.models = models
        self.keys = keys
        self.gate = gate
        let state = StateStore(settings: settings, environment: launcher.environment, logger: logger)
        responses = StoredResponses(state)
        sessions = StoredSessions(state) { gate.isBusy(session: $0) }
        runs = StoredRuns(state)
        followers = Followers(limit: settings.followersPerResponder)
        spares = SparePool(launcher: launcher, gate: gate, logger: logger)
        live = LivePool(settings: settings, gate: gate)
        pipeline = RunPipeline(
            settings: settings, gate: gate, launcher: launcher, models: models, spares: spares, live: live)
    }

    /// Starts the threads beside those of requests.
    func startThreads() {
        Maintenance.start(sessions.state, sessions, runs) { [self] in endedCount.load(ordering: .relaxed) }
        spares.start()
        live.start()
    }

    /// Ends the processes that only wait, and does what was put off.
    @available(*, noasync, message: "blocks")
    func drain() {
        draining.withLock { _ in
            spares.drain()
            live.drain()
            sessions.state.writePostponed()
            sessions.removeDeleted()
        }
    }

    /// Answers one request.
    @Sendable func handle(_ request: inout FastCGIRequest) {
        // A client that left while its connection waited in the backlog is still delivered.
        if request.isAbandoned { return }
        defer { endedCount.add(1, ordering: .relaxed) }
        var log = RequestLog(requestID: request.parameter("REQUEST_ID") ?? UUIDText.random())
        var reply = ReplyWriter()
        let method = request.parameter("REQUEST_METHOD") ?? ""
        let path = String((request.parameter("REQUEST_URI") ?? "").prefix { $0 != "?" })
        log.method = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(method) ? method : "other"
        log.clientAddress = request.parameter("REMOTE_ADDR")
        // The list of models has both vendors' clients under one path.
        let isAnthropic = path.hasPrefix("/v1/models") && request.parameter("HTTP_ANTHROPIC_VERSION") != nil
        var dialect = isAnthropic ? .anthropic : Route.dialect(ofPath: path)
        do throws(APIError) {
            let (route, client) = try self.route(method: method, path: path, request, &log)
            if !isAnthropic { dialect = route.dialect }
            try answer(route, client, &request, &reply, &log)
        } catch {
            log.error = error
            if !log.isAbandoned, !reply.hasBegun { refuse(error, dialect, &reply, log.requestID) }
        }
        if !log.isAbandoned, reply.isPending, !reply.flushAll(to: request, patience: .seconds(60)) {
            log.isAbandoned = true
        }
        request.finish()
        if log.isHandedOver { return logger.debug("handed over", metadata: [LogKey.requestID: "\(log.requestID)"]) }
        log.status = log.isAbandoned && !reply.hasBegun ? 499 : reply.status
        log.sentBytes = reply.sentBytes
        log.write(to: logger)
        gate.count(log.record)
    }

    /// The key is checked before the path, so that a stranger learns nothing of what is served.
    private func route(
        method: String, path: String, _ request: borrowing FastCGIRequest, _ log: inout RequestLog
    ) throws(APIError) -> (Route, Client) {
        var client = Client(name: "-")
        let route: Route?
        var failure: APIError?
        do throws(APIError) {
            route = try Route.of(method: method, path: path)
        } catch {
            route = nil
            failure = error
        }
        if let route {
            log.route = route.name
            log.routeNumber = route.number
        }
        if route?.isOpen != true {
            client = try keys.ring.client(
                authorization: request.parameter("HTTP_AUTHORIZATION"), apiKey: request.parameter("HTTP_X_API_KEY"))
            log.clientName = client.name
        }
        guard let route else { throw failure ?? APIError(.notFound, "There is nothing at this path.") }
        return (route, client)
    }

    /// Answers by route.
    ///
    /// What may wait is not inlined: the stack that all routes need together would be held by each request that waits.
    private func answer(
        _ route: Route, _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter,
        _ log: inout RequestLog
    ) throws(APIError) {
        let isDeletion = request.parameter("REQUEST_METHOD") == "DELETE"
        switch route {
        case .health:
            reply.reply(status: 200, json: health(), header: [("Cache-Control", "no-store")])
        case .metrics:
            reply.begin(
                status: 200, header: [("Content-Type", "text/plain; version=0.0.4"), ("Cache-Control", "no-store")])
            reply.append(Array(MetricsPage.text(gate.scoreboard()).utf8))
        case .models: try answerModels(request, &reply)
        case .model(let id): try answerModel(id, request, &reply)
        case .chatCompletions: try chatCompletions(client, &request, &reply, &log)
        case .completions: try completions(client, &request, &reply, &log)
        case .messages: try messages(client, &request, &reply, &log)
        case .countTokens: try countTokens(client, &request, &reply, &log)
        case .responses: try createResponse(client, &request, &reply, &log)
        case .response(let id):
            try answerResponse(id, isDeletion, client, request, &reply)
        case .responseCancel(let id): try cancelResponse(id, client, &reply)
        case .responseInput(let id): try answerResponseInput(id, client, request, &reply)
        case .run: try run(client, &request, &reply, &log)
        case .backgroundRun(let id): try answerRun(id, client, &reply)
        case .backgroundRunEvents(let id): try followRun(id, client, &request, &reply, &log)
        case .backgroundRunCancel(let id): try cancelRun(id, client, &reply)
        case .sessions where isDeletion: try deleteSessions(client, &reply)
        case .sessions: try listSessions(client, request, &reply)
        case .session(let id): try answerSession(id, isDeletion, client, &reply)
        }
    }

    /// The request's body as a dialect reads it.
    func decode<Decoded>(
        _ request: borrowing FastCGIRequest, _ log: inout RequestLog,
        _ decoder: (JSONValue) throws(APIError) -> Decoded
    ) throws(APIError) -> Decoded {
        let body: [UInt8]
        do throws(RequestBodyError) {
            body = try request.readBody(limitBytes: Settings.bodyLimitBytes)
        } catch {
            switch error {
            case .tooLarge(let limit):
                throw APIError(
                    .requestTooLarge, "The request's body is over the limit of \(limit >> 20) MiB. Send less.")
            case .timedOut: throw APIError(.requestTimeout, "The request's body did not arrive in time. Send it again.")
            case .aborted:
                log.isAbandoned = true
                throw APIError(.requestTimeout, "The client left while it sent the request's body.")
            }
        }
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONParser.parse(body)
        } catch {
            throw .invalid(
                nil,
                body.isEmpty
                    ? "The request has no body. Send JSON."
                    : "The request's body is not JSON: \(error.reason) (byte \(error.offset)).")
        }
        return try decoder(json)
    }

    /// A chat's request: its session may stand in a header, and the operator may have given chats tools.
    func decodeChat(
        _ request: borrowing FastCGIRequest, _ log: inout RequestLog,
        _ decoder: (JSONValue, SessionWish) throws(APIError) -> RunRequest
    ) throws(APIError) -> RunRequest {
        let wish: SessionWish =
            switch request.parameter("HTTP_X_SESSION_ID") {
            case nil, "": .none
            case "new": .new
            case .some(let id): .existing(id: id, forks: false)
            }
        var run = try decode(request, &log) { json throws(APIError) in try decoder(json, wish) }
        run.hostTools = settings.chatTools
        run.usesClaudeCodePrompt = settings.chatUsesClaudeCodePrompt
        return run
    }

    /// The runs that a request asks for, one a choice of its reply.
    func choices(_ requests: [RunRequest], _ log: inout RequestLog) throws(APIError) -> [RunRequest] {
        let choices = requests.flatMap { Array(repeating: $0, count: min($0.choiceCount, settings.maxChoices + 1)) }
        guard choices.count <= settings.maxChoices else {
            throw .invalid(
                "n",
                "`n`: this service gives at most \(settings.maxChoices) answers to one request (MAX_CHOICES). Send "
                    + "several requests instead.")
        }
        if choices.count > 1, let first = requests.first, first.session != .none {
            throw .invalid("n", "`n`: a session goes on with one answer. Leave `n` out, or the session.")
        }
        log.isStream = requests.first?.isStreaming ?? false
        log.ignoredParameters = requests.first?.ignoredParameters.map { String($0.prefix(40)) } ?? []
        return choices
    }

    /// What a reply has that is neither the request's nor the run's.
    func context(_ log: RequestLog) -> ReplyContext {
        ReplyContext(
            requestID: log.requestID, created: WallClock.now.seconds,
            fingerprint: models.catalogWithoutWaiting().fingerprint)
    }

    private func refuse(_ error: APIError, _ dialect: Dialect, _ reply: inout ReplyWriter, _ requestID: String) {
        var header: [(name: String, value: String)] = []
        if let seconds = error.retryAfterSeconds { header.append(("Retry-After", String(seconds))) }
        if let methods = error.allowedMethods {
            header.append(("Allow", methods.hasPrefix("GET") ? methods + ", HEAD" : methods))
        }
        if dialect == .anthropic { header.append(("request-id", requestID)) }
        if error.kind == .auth { header.append(("WWW-Authenticate", "Bearer")) }
        // The official SDKs retry what looks passing; these do not pass by asking again.
        if [.cliNotFound, .upstreamAuth, .sessionLimitReached].contains(error.kind) {
            header.append(("X-Should-Retry", "false"))
        }
        reply.reply(
            status: dialect.status(of: error), json: dialect.errorBody(error, requestID: requestID), header: header)
    }

    /// The Node proxy's fields; degraded from 90 % of the queue.
    private func health() -> JSONValue {
        let counts = gate.counts
        let limits = gate.limits
        let isDegraded =
            limits.queueLimit > 0 ? counts.waiting * 10 >= limits.queueLimit * 9 : counts.running >= limits.concurrency
        let responders = gate.scoreboard().responders
        return [
            "status": isDegraded ? "degraded" : "ok",
            "uptime": .integer(Int((ContinuousClock.now - started).components.seconds)),
            "queue": [
                "pending": .integer(counts.waiting), "processing": .integer(counts.running),
                "concurrency": .integer(limits.concurrency),
            ],
            "processes": [
                "spares": .integer(responders.reduce(0) { $0 + $1.spares }),
                "live": .integer(gate.liveCount),
                "memoryBytes": .integer(responders.reduce(0) { $0 + $1.spareKibibytes + $1.liveKibibytes } << 10),
            ],
            "sessions": ["total": .integer(sessions.count), "locked": .integer(gate.busySessionCount)],
        ]
    }
}
