/// The three APIs that clients speak.
public enum Dialect: String, Sendable, CaseIterable {
    /// OpenAI's API under `/v1/`.
    case openAI = "openai"
    /// Anthropic's Messages API at `/v1/messages`.
    case anthropic
    /// The direct API under `/api/`, and `/health`.
    case direct

    /// The HTTP status of an error.
    public func status(of error: APIError) -> Int {
        // Anthropic's overload has a status of its own, which its SDKs know.
        self == .anthropic && error.kind == .overloaded ? 529 : error.status
    }

    /// An error as this API's clients know it.
    public func errorBody(_ error: APIError, requestID: String) -> JSONValue {
        switch self {
        case .openAI:
            [
                "error": [
                    "message": .string(error.message), "type": .string(Self.openAIType(error.kind)),
                    "param": error.parameter.map { .string($0) } ?? .null, "code": .string(Self.openAICode(error.kind)),
                ]
            ]
        case .anthropic:
            ["type": "error", "error": Self.anthropicError(error), "request_id": .string(requestID)]
        case .direct:
            if let parameter = error.parameter {
                [
                    "error": [
                        "code": .string(error.kind.rawValue), "message": .string(error.message),
                        "details": ["parameter": .string(parameter)],
                    ]
                ]
            } else {
                ["error": ["code": .string(error.kind.rawValue), "message": .string(error.message)]]
            }
        }
    }

    /// The event that ends a stream which fails after its first byte; its form in each API's streams.
    public func appendErrorEvent(_ error: APIError, requestID: String, to out: inout [UInt8]) {
        let body = errorBody(error, requestID: requestID)
        if self != .openAI { ServerSentEvents.append(event: "error", to: &out) }
        ServerSentEvents.append(data: self == .direct ? body["error"] ?? body : body, to: &out)
    }

    /// What keeps a silent stream's connection open: a comment, which every client skips; with it Anthropic's own `ping`.
    ///
    /// It has two kilobytes, because some proxies hold small pieces back until they have that much.
    public func appendHeartbeat(to out: inout [UInt8]) {
        out.append(contentsOf: Self.padding)
        if self == .anthropic {
            ServerSentEvents.append(event: "ping", to: &out)
            ServerSentEvents.append(data: ["type": "ping"], to: &out)
        }
    }

    private static let padding = Array((":" + String(repeating: " ", count: 2048) + "\n\n").utf8)

    private static func openAIType(_ kind: APIError.Kind) -> String {
        switch kind {
        case .invalidRequest, .auth, .notFound, .methodNotAllowed, .modelNotFound, .sessionNotFound, .sessionGone,
            .requestTooLarge,
            .requestTimeout, .forbidden, .cancelled:
            "invalid_request_error"
        case .queueFull, .rateLimit, .sessionLimitReached: "rate_limit_error"
        default: "server_error"
        }
    }

    private static func openAICode(_ kind: APIError.Kind) -> String {
        switch kind {
        case .auth: "invalid_api_key"
        case .rateLimit: "rate_limit_exceeded"
        default: kind.rawValue
        }
    }

    private static func anthropicError(_ error: APIError) -> JSONValue {
        var body = JSONObject([("type", .string(anthropicType(error.kind))), ("message", .string(error.message))])
        if let details = error.details { body["details"] = details }
        return .object(body)
    }

    private static func anthropicType(_ kind: APIError.Kind) -> String {
        switch kind {
        case .invalidRequest, .methodNotAllowed, .requestTimeout, .sessionGone, .cancelled:
            "invalid_request_error"
        case .auth: "authentication_error"
        case .forbidden: "permission_error"
        case .notFound, .modelNotFound, .sessionNotFound: "not_found_error"
        case .requestTooLarge: "request_too_large"
        case .queueFull, .rateLimit, .sessionLimitReached: "rate_limit_error"
        case .overloaded, .unavailable: "overloaded_error"
        case .queueTimeout, .timeout: "timeout_error"
        default: "api_error"
        }
    }
}

/// Server-sent events, as the HTML standard has them.
public enum ServerSentEvents {
    /// Appends an event's name; its data must follow.
    public static func append(event: String, to out: inout [UInt8]) {
        JSONWriter.append(raw: "event: ", to: &out)
        JSONWriter.append(raw: event, to: &out)
        out.append(0x0A)
    }

    /// Appends an event's data, which ends the event.
    ///
    /// JSON from ``JSONWriter`` has no line ends inside.
    public static func append(data: JSONValue, to out: inout [UInt8]) {
        JSONWriter.append(raw: "data: ", to: &out)
        JSONWriter.append(data, to: &out)
        JSONWriter.append(raw: "\n\n", to: &out)
    }
}
