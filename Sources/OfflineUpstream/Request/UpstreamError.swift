import Dialects
import Synchronization

/// An HTTP error in the Messages API's shape.
struct UpstreamError: Error, Sendable, Equatable {
    /// The HTTP status.
    var status: Int
    /// What went wrong.
    var message: String
    /// The limit that was reached, told in the reply's headers.
    var rateLimit: RateLimit?

    /// A request that the API refuses.
    static func invalid(_ message: String) -> UpstreamError { UpstreamError(status: 400, message: message) }

    /// The vendor's name for the status.
    ///
    /// Source: https://docs.anthropic.com/en/api/errors
    var type: String {
        switch status {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 413: "request_too_large"
        case 429: "rate_limit_error"
        case 504: "timeout_error"
        case 529: "overloaded_error"
        case 500...: "api_error"
        default: "invalid_request_error"
        }
    }

    /// The error as the API writes it, in a body and in an `error` event.
    func body(requestID: String) -> JSONValue {
        [
            "type": "error", "error": ["type": .string(type), "message": .string(message)],
            "request_id": .string(requestID),
        ]
    }

    /// An `[[error=STATUS]]`.
    static func ordered(_ status: Int) -> UpstreamError {
        UpstreamError(status: status, message: "The prompt ordered the offline upstream to fail with status \(status).")
    }
}

/// Counts how often the errors and faults with `*TIMES` have struck a session.
///
/// Lives in one process: of several that share a socket each has counts of its own.
final class StrikeCounter: Sendable {
    /// More sessions at once than this lose their counts; the prompts behind them are struck a few times more.
    private static let capacity = 4096

    private let spent = Mutex<[String: Int]>([:])

    /// Whether this request is struck.
    ///
    /// After the last time the count is forgotten, so the same prompt is struck anew in the session's next turn.
    func strikes(_ recurrence: Directives.Recurrence, session: String) -> Bool {
        guard let times = recurrence.times else { return true }
        let key = "\(session) \(recurrence.spelling)"
        return spent.withLock { spent in
            let count = spent[key, default: 0]
            if count >= times {
                spent[key] = nil
                return false
            }
            if spent.count >= Self.capacity { spent.removeAll() }
            spent[key] = count + 1
            return true
        }
    }
}
