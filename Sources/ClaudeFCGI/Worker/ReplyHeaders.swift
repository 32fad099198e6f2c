import Dialects
import Synchronization

/// The vendors' own headers of an answer, which their SDKs and the tools around them read.
struct ReplyHeaders: Sendable {
    let dialect: Dialect
    let requestID: String
    let started: ContinuousClock.Instant
    /// Parameters that changed nothing.
    let ignored: [String]
    /// The stored conversation that the answer is a part of.
    let sessionID: String?
    let rateLimits: RateLimitStore

    /// All of them, as of a moment.
    func all(_ now: ContinuousClock.Instant) -> [(name: String, value: String)] {
        var headers: [(name: String, value: String)] = []
        // Names are the caller's text: only what a header can carry goes into one.
        let names = ignored.filter { name in
            !name.isEmpty && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ",") }
        }
        if !names.isEmpty { headers.append(("X-Claude-Ignored", names.prefix(50).joined(separator: ", "))) }
        if let sessionID { headers.append(("X-Session-Id", sessionID)) }
        switch dialect {
        case .openAI:
            headers.append(("openai-processing-ms", String(Int((now - started).milliseconds))))
            headers.append(("openai-version", "2020-10-01"))
        case .anthropic: headers.append(("request-id", requestID))
        case .direct: break
        }
        return headers + rateLimits.headers(dialect)
    }
}

/// What the CLI last said of the account's limits.
///
/// It says so behind an answer, so an answer's headers have what was known before it, by this responder.
final class RateLimitStore: Sendable {
    private let last = Mutex<RateLimit?>(nil)

    /// Keeps the newest word.
    func note(_ limit: RateLimit) { last.withLock { $0 = limit } }

    /// The headers by which each vendor tells its limits; none for an account without.
    ///
    /// OpenAI's count requests. Here they count hundredths of the account's limit: what is known is a share.
    func headers(_ dialect: Dialect) -> [(name: String, value: String)] {
        guard let limit = last.withLock({ $0 }) else { return [] }
        let seconds = limit.resetsAt.map { max(0, $0 - WallClock.now.seconds) }
        var headers: [(name: String, value: String)] = []
        switch dialect {
        case .openAI:
            guard let utilization = limit.utilization else { return [] }
            let share = utilization.isFinite ? min(max(utilization, 0), 1) : 1
            let left = 100 - Int((share * 100).rounded())
            headers = [("x-ratelimit-limit-requests", "100"), ("x-ratelimit-remaining-requests", String(left))]
            if let seconds { headers.append(("x-ratelimit-reset-requests", "\(seconds)s")) }
        case .anthropic:
            let prefix = "anthropic-ratelimit-unified-"
            headers = [(prefix + "status", limit.status)]
            if let type = limit.type { headers.append((prefix + "representative-claim", type)) }
            if let resets = limit.resetsAt { headers.append((prefix + "reset", String(resets))) }
            if let utilization = limit.utilization { headers.append((prefix + "utilization", String(utilization))) }
        case .direct: break
        }
        // The CLI's words become a header: only what one can carry.
        return headers.filter { $0.value.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F } }
    }
}
