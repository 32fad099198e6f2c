import Admission
import Dialects
import FastCGI
import Glibc
import Logging

/// Answers requests: one call a request, on its thread.
final class Responder: Sendable {
    private let settings: Settings
    private let logger: Logger
    private let keys: KeyRingStore
    private let gate: AdmissionGate
    private let models: ModelCatalogStore
    private let pipeline: RunPipeline
    private let started = ContinuousClock.now

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
        pipeline = RunPipeline(settings: settings, gate: gate, launcher: launcher, models: models)
    }

    /// Answers one request.
    @Sendable func handle(_ request: inout FastCGIRequest) {
        // A client that left while its connection waited in the backlog is still delivered.
        if request.isAbandoned { return }
        var log = RequestLog(requestID: request.parameter("REQUEST_ID") ?? UUIDText.random())
        var reply = ReplyWriter()
        let method = request.parameter("REQUEST_METHOD") ?? ""
        let path = String((request.parameter("REQUEST_URI") ?? "").prefix { $0 != "?" })
        log.method = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(method) ? method : "other"
        log.clientAddress = request.parameter("REMOTE_ADDR")
        var dialect = Route.dialect(ofPath: path)
        do throws(APIError) {
            let (route, client) = try self.route(method: method, path: path, request, &log)
            dialect = route.dialect
            try answer(route, client, &request, &reply, &log)
        } catch {
            log.error = error
            if !log.isAbandoned, !reply.hasBegun { refuse(error, dialect, &reply, log.requestID) }
        }
        if !log.isAbandoned, reply.isPending, !reply.flushAll(to: request, patience: .seconds(60)) {
            log.isAbandoned = true
        }
        request.finish()
        log.status = log.isAbandoned && !reply.hasBegun ? 499 : reply.status
        log.sentBytes = reply.sentBytes
        log.write(to: logger)
        gate.count(log.record)
    }

    /// The key is checked before the path, so that a stranger learns nothing of what is served.
    private func route(
        method: String, path: String, _ request: borrowing FastCGIRequest, _ log: inout RequestLog
    ) throws(APIError) -> (Route, AdmissionClient) {
        var client = AdmissionClient(name: "-")
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

    private func answer(
        _ route: Route, _ client: AdmissionClient, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter,
        _ log: inout RequestLog
    ) throws(APIError) {
        switch route {
        case .health:
            reply.reply(status: 200, json: health(), header: [("Cache-Control", "no-store")])
        case .metrics:
            reply.begin(
                status: 200, header: [("Content-Type", "text/plain; version=0.0.4"), ("Cache-Control", "no-store")])
            reply.append(Array(MetricsPage.text(gate.scoreboard()).utf8))
        case .models:
            reply.reply(status: 200, json: ModelsReply.list(try models.catalog()))
        case .model(let id):
            let catalog = try models.catalog()
            guard let model = catalog.models.first(where: { $0.id == id }) else {
                _ = try catalog.resolve(id)
                reply.reply(status: 200, json: ModelsReply.entry(.init(id: id, resolvedID: id, displayName: id)))
                return
            }
            reply.reply(status: 200, json: ModelsReply.entry(model))
        case .chatCompletions:
            let run = try decode(request, &log, ChatCompletionsRequest.decode)
            let context = ReplyContext(requestID: log.requestID, created: WallClock.now.seconds)
            let form: ReplyForm =
                run.isStreaming
                ? .stream(ChatCompletionsStream(context: context, includesUsage: run.includesUsage))
                : .whole { answer, _ in ChatCompletionsReply.whole(answer, context: context) }
            try pipeline.run(
                run, as: form, route: route, client: client, request: &request, reply: &reply, log: &log)
        case .messages:
            let run = try decode(request, &log, MessagesRequest.decode)
            let form: ReplyForm =
                run.isStreaming ? .stream(MessagesStream()) : .whole { answer, _ in MessagesReply.whole(answer) }
            try pipeline.run(
                run, as: form, route: route, client: client, request: &request, reply: &reply, log: &log)
        case .run:
            let run = try decode(request, &log, DirectRequest.decode)
            let id = UUIDText.random()
            let form = ReplyForm.whole { answer, duration in DirectReply.whole(answer, id: id, duration: duration) }
            try pipeline.run(
                run, as: form, route: route, client: client, request: &request, reply: &reply, log: &log)
        }
    }

    private func decode(
        _ request: borrowing FastCGIRequest, _ log: inout RequestLog,
        _ decoder: (JSONValue) throws(APIError) -> RunRequest
    ) throws(APIError) -> RunRequest {
        let body: [UInt8]
        do throws(RequestBodyError) {
            body = try request.readBody(limitBytes: Settings.bodyLimitBytes)
        } catch {
            switch error {
            case .tooLarge(let limit):
                throw APIError(
                    .requestTooLarge,
                    "The request's body is over the limit of \(limit >> 20) MiB. Send "
                        + "less.")
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
                    : "The request's body is not JSON: "
                        + "\(error.reason) (byte \(error.offset)).")
        }
        let run = try decoder(json)
        log.isStream = run.isStreaming
        log.ignoredParameters = run.ignoredParameters.map { String($0.prefix(40)) }
        return run
    }

    private func refuse(_ error: APIError, _ dialect: Dialect, _ reply: inout ReplyWriter, _ requestID: String) {
        var header: [(name: String, value: String)] = []
        if let seconds = error.retryAfterSeconds { header.append(("Retry-After", String(seconds))) }
        if let methods = error.allowedMethods { header.append(("Allow", methods == "GET" ? "GET, HEAD" : methods)) }
        if error.kind == .auth { header.append(("WWW-Authenticate", "Bearer")) }
        // The official SDKs retry what looks passing; these do not pass by asking again.
        if [.cliNotFound, .upstreamAuth].contains(error.kind) { header.append(("X-Should-Retry", "false")) }
        reply.reply(
            status: dialect.status(of: error), json: dialect.errorBody(error, requestID: requestID), header: header)
    }

    /// The Node proxy's fields; degraded from 90 % of the queue.
    private func health() -> JSONValue {
        let counts = gate.counts
        let limits = gate.limits
        let isDegraded =
            limits.queueLimit > 0 ? counts.waiting * 10 >= limits.queueLimit * 9 : counts.running >= limits.concurrency
        return [
            "status": isDegraded ? "degraded" : "ok",
            "uptime": .integer(Int((ContinuousClock.now - started).components.seconds)),
            "queue": [
                "pending": .integer(counts.waiting), "processing": .integer(counts.running),
                "concurrency": .integer(limits.concurrency),
            ],
            "sessions": ["total": 0, "locked": 0],
        ]
    }
}
