import Glibc

/// How much of an account's limit for five hours is used up: `[[rate_limit=UTILIZATION]]`.
struct RateLimit: Sendable, Equatable {
    /// 0 for nothing, 1 for all.
    var utilization: Double

    /// Whether requests are refused.
    var isReached: Bool { utilization >= 1 }

    /// From here on there is a warning.
    static let warningThreshold = 0.8

    /// The API's word for the state.
    var status: String { isReached ? "rejected" : utilization >= Self.warningThreshold ? "allowed_warning" : "allowed" }

    /// The reply's headers, each with its line end.
    ///
    /// - Parameter now: Seconds since 1970; the limit is lifted an hour later.
    func headers(now: Int) -> String {
        var headers = [
            "status: \(status)", "reset: \(now + 3600)", "representative-claim: five_hour",
            "5h-utilization: \(utilization)", "5h-reset: \(now + 3600)", "5h-status: \(status)",
        ]
        // Without this the CLI (2.1.330) doesn't pass the warning on.
        if utilization >= Self.warningThreshold { headers.append("5h-surpassed-threshold: \(Self.warningThreshold)") }
        return headers.map { "anthropic-ratelimit-unified-\($0)\r\n" }.joined()
    }
}

/// What the heads of all replies to one request have in common.
struct ReplyHead: Sendable {
    /// What makes this request's ids differ from all others.
    let unique: String
    /// The limit to tell of.
    var rateLimit: RateLimit?

    /// A head for one request.
    init(unique: String) { self.unique = unique }

    /// The request's id, in a header of every reply.
    var requestID: String { "req_offline_\(unique)" }

    /// The CGI header lines with the empty line behind them.
    func bytes(status: String = "200 OK", type: String, length: Int?) -> [UInt8] {
        var head = "Status: \(status)\r\nContent-Type: \(type)\r\nCache-Control: no-cache\r\n"
        head += "request-id: \(requestID)\r\n"
        if let rateLimit { head += rateLimit.headers(now: time(nil)) }
        if let length { head += "Content-Length: \(length)\r\n" }
        if status.hasPrefix("405") { head += "Allow: POST\r\n" }
        // A second, so that a test of the CLI's retries is short.
        if status.hasPrefix("429") { head += "Retry-After: 1\r\n" }
        return Array((head + "\r\n").utf8)
    }
}
