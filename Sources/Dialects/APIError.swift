/// A failure as a client sees it: what kind it is, what to do about it, and a cause that only the log sees.
///
/// Each dialect renders it in its own shape (``Dialect/errorBody(_:requestID:)``). A message never quotes a prompt, an answer or a key.
public struct APIError: Error, Sendable, Equatable {
    /// What failed.
    ///
    /// Statuses and codes of the direct dialect are those of the Node proxy, except where noted.
    public enum Kind: String, Sendable, CaseIterable {
        /// The request is not what the API takes.
        case invalidRequest = "invalid_request"
        /// No key, or not one of the service's.
        case auth = "auth_error"
        /// The path is not served.
        case notFound = "not_found"
        /// The path does not take this method.
        case methodNotAllowed = "method_not_allowed"
        /// The model is not one that the installed CLI knows.
        case modelNotFound = "model_not_found"
        /// A session that does not exist or is another key's.
        case sessionNotFound = "session_not_found"
        /// A session of which the CLI has lost what was said.
        case sessionGone = "session_gone"
        /// The key has all the sessions it may have.
        case sessionLimitReached = "session_limit_reached"
        /// A directory outside the allowed roots.
        case forbidden = "forbidden"
        /// The body is over the limit.
        case requestTooLarge = "request_too_large"
        /// The body did not arrive in time.
        case requestTimeout = "request_timeout"
        /// All places to run and to wait are taken.
        case queueFull = "queue_full"
        /// The request waited as long as it may.
        case queueTimeout = "queue_timeout"
        /// The upstream API limits the service's account.
        case rateLimit = "rate_limit"
        /// The upstream API is overloaded.
        case overloaded = "overloaded"
        /// The upstream API does not accept the service's own login. 502 where the Node proxy said 401: a caller's SDK must
        /// not take it for a bad key of the caller's.
        case upstreamAuth = "upstream_auth_error"
        /// The upstream API failed.
        case upstream = "upstream_error"
        /// The CLI is not installed where the service looks for it.
        case cliNotFound = "cli_not_found"
        /// The CLI failed.
        case cli = "cli_error"
        /// The run took longer than it may.
        case timeout = "timeout"
        /// The caller ended the run by another request.
        case cancelled = "cancelled"
        /// The service is being stopped.
        case unavailable = "unavailable"
        /// A fault of the service's own.
        case `internal` = "internal_error"
    }

    /// What failed.
    public var kind: Kind
    /// What failed, on what, and what to do next.
    public var message: String
    /// The parameter at fault, as a path in the request's JSON (`messages[0].content`).
    public var parameter: String?
    /// When a new try makes sense, in whole seconds.
    public var retryAfterSeconds: Int?
    /// Facts for the log alone.
    public var cause: String?
    /// What the path takes instead, for the `Allow` header.
    public var allowedMethods: String?
    /// More for a client's program, where its API has such: the `details` of Anthropic's errors.
    public var details: JSONValue?
    /// Whether the same request may well succeed when it is tried again.
    public var isTransient: Bool

    /// An error.
    public init(
        _ kind: Kind, _ message: String, parameter: String? = nil, retryAfterSeconds: Int? = nil, cause: String? = nil,
        isTransient: Bool? = nil, allowedMethods: String? = nil
    ) {
        self.kind = kind
        self.message = message
        self.parameter = parameter
        self.retryAfterSeconds = retryAfterSeconds
        self.cause = cause
        self.allowedMethods = allowedMethods
        self.isTransient = isTransient ?? [.rateLimit, .overloaded, .upstream].contains(kind)
    }

    /// A request that is not what the API takes, at one parameter.
    public static func invalid(_ parameter: String?, _ message: String) -> APIError {
        APIError(.invalidRequest, message, parameter: parameter)
    }

    /// The HTTP status in the OpenAI and direct dialects.
    public var status: Int {
        switch kind {
        case .invalidRequest: 400
        case .auth: 401
        case .forbidden: 403
        case .notFound, .modelNotFound, .sessionNotFound: 404
        case .methodNotAllowed: 405
        case .requestTimeout: 408
        case .cancelled: 409
        case .sessionGone: 410
        case .requestTooLarge: 413
        case .queueFull, .rateLimit, .sessionLimitReached: 429
        case .internal, .cliNotFound, .cli: 500
        case .upstreamAuth, .upstream: 502
        case .unavailable, .overloaded: 503
        case .timeout, .queueTimeout: 504
        }
    }
}
