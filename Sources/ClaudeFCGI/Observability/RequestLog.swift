import Admission
import Dialects
import Logging

/// The keys of log metadata, in one place.
enum LogKey {
    static let requestID = "request.id"
    static let clientName = "client.name"
    static let clientAddress = "client.address"
    static let method = "http.method"
    static let route = "http.route"
    static let attempts = "attempts"
    static let status = "http.status"
    static let sentBytes = "http.sent_bytes"
    static let model = "model"
    static let isStream = "stream"
    static let outcome = "outcome"
    static let queueMilliseconds = "time.queue_ms"
    static let firstByteMilliseconds = "time.first_byte_ms"
    static let totalMilliseconds = "time.total_ms"
    static let inputTokens = "tokens.input"
    static let outputTokens = "tokens.output"
    static let cacheReadTokens = "tokens.cache_read"
    static let cost = "cost_usd"
    static let cliPID = "cli.pid"
    static let cliEnd = "cli.end"
    static let cliErrors = "cli.stderr"
    static let errorKind = "error.kind"
    static let errorCause = "error.cause"
    static let ignoredParameters = "ignored"
    static let reason = "reason"
    static let responderPID = "responder.pid"
    static let threads = "threads"
    static let keys = "keys"
}

/// What is known of one request, written as one line when it has ended.
///
/// No prompt, answer or key is ever among it.
struct RequestLog {
    let requestID: String
    let started = ContinuousClock.now
    var clientAddress: String?
    var clientName: String?
    var method = ""
    var route = "-"
    var model: String?
    var isStream = false
    var status = 0
    var sentBytes = 0
    var admitted: ContinuousClock.Instant?
    var firstByte: ContinuousClock.Instant?
    var usage: TokenUsage?
    var costUSD: Double?
    var cliPID: Int32?
    var cliEnd: String?
    var cliErrors: String?
    var error: APIError?
    var attempts = 0
    var routeNumber = Route.names.count - 1
    var isAbandoned = false
    /// Another responder answers and logs it.
    var isHandedOver = false
    var ignoredParameters: [String] = []

    init(requestID: String) { self.requestID = requestID }

    /// Writes the line: `info`, or `warning` where the operator should act.
    func write(to logger: Logger) {
        let now = ContinuousClock.now
        var fields: Logger.Metadata = [
            LogKey.requestID: "\(requestID)", LogKey.method: "\(method)", LogKey.route: "\(route)",
            LogKey.status: .stringConvertible(status),
            LogKey.totalMilliseconds: .stringConvertible((now - started).milliseconds),
            LogKey.sentBytes: .stringConvertible(sentBytes),
            LogKey.outcome: "\(isAbandoned ? "abandoned" : error == nil ? "ok" : "failed")",
        ]
        func set(_ key: String, _ value: (some CustomStringConvertible & Sendable)?) {
            if let value { fields[key] = .stringConvertible(value) }
        }
        set(LogKey.clientAddress, clientAddress)
        set(LogKey.clientName, clientName)
        set(LogKey.model, model)
        if attempts > 1 { set(LogKey.attempts, attempts) }
        if isStream { set(LogKey.isStream, true) }
        set(LogKey.queueMilliseconds, admitted.map { ($0 - started).milliseconds })
        set(LogKey.firstByteMilliseconds, firstByte.map { ($0 - started).milliseconds })
        set(LogKey.inputTokens, usage?.prompt)
        set(LogKey.outputTokens, usage?.output)
        set(LogKey.cacheReadTokens, usage?.cacheRead)
        set(LogKey.cost, costUSD.map { ($0 * 1e6).rounded() / 1e6 })
        set(LogKey.cliPID, cliPID)
        set(LogKey.cliEnd, cliEnd)
        set(LogKey.cliErrors, cliErrors)
        set(LogKey.errorKind, error?.kind.rawValue)
        set(LogKey.errorCause, error?.cause)
        if !ignoredParameters.isEmpty { set(LogKey.ignoredParameters, ignoredParameters.joined(separator: ",")) }
        logger.log(level: needsOperator ? .warning : .info, "request", metadata: fields)
    }

    /// What the shared counters keep of it.
    var record: RequestRecord {
        let times: [(RequestTiming, Duration)?] = [
            admitted.map { (.queueWait, $0 - started) }, firstByte.map { (.firstByte, $0 - started) },
            (.total, ContinuousClock.now - started),
        ]
        return RequestRecord(
            route: routeNumber, status: MetricsPage.number(ofStatus: status), timings: times.compactMap { $0 },
            inputTokens: usage?.prompt ?? 0, outputTokens: usage?.output ?? 0, cacheReadTokens: usage?.cacheRead ?? 0,
            costUSD: costUSD ?? 0)
    }

    private var needsOperator: Bool {
        switch error?.kind {
        case .internal, .cliNotFound, .cli, .upstreamAuth: true
        default: false
        }
    }
}

extension Duration {
    /// Milliseconds with three decimals, for logs.
    var milliseconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds * 1_000_000 + attoseconds / 1_000_000_000_000) / 1000
    }
}
