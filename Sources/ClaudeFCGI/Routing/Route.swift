import Dialects

/// What a path leads to.
enum Route: Equatable, Sendable {
    case health
    case models
    case model(id: String)
    case chatCompletions
    case messages
    case run
    case metrics
    case completions
    case countTokens
    case responses
    case response(id: String)
    case responseCancel(id: String)
    case responseInput(id: String)
    case sessions
    case session(id: String)
    case backgroundRun(id: String)
    case backgroundRunEvents(id: String)
    case backgroundRunCancel(id: String)

    /// Names by number, as counters and `claude-fcgi status` have them; the last is for what is no route.
    static let names = [
        "/health", "/v1/models", "/v1/models/ID", "/v1/chat/completions", "/v1/messages", "/api/run", "/metrics",
        "/v1/completions", "/v1/messages/count_tokens", "/v1/responses", "/v1/responses/ID", "/v1/responses/ID/cancel",
        "/v1/responses/ID/input_items", "/api/sessions", "/api/sessions/ID", "/api/runs/ID", "/api/runs/ID/events",
        "/api/runs/ID/cancel", "other",
    ]

    /// The name in logs: few values, no caller's text.
    var name: String { Self.names[number] }

    /// The number in shared memory.
    var number: Int {
        switch self {
        case .health: 0
        case .models: 1
        case .model: 2
        case .chatCompletions: 3
        case .messages: 4
        case .run: 5
        case .metrics: 6
        case .completions: 7
        case .countTokens: 8
        case .responses: 9
        case .response: 10
        case .responseCancel: 11
        case .responseInput: 12
        case .sessions: 13
        case .session: 14
        case .backgroundRun: 15
        case .backgroundRunEvents: 16
        case .backgroundRunCancel: 17
        }
    }

    var dialect: Dialect {
        switch self {
        case .health, .run, .metrics, .sessions, .session, .backgroundRun, .backgroundRunEvents, .backgroundRunCancel:
            .direct
        case .models, .model, .chatCompletions, .completions, .responses, .response, .responseCancel, .responseInput:
            .openAI
        case .messages, .countTokens: .anthropic
        }
    }

    /// Whether the route is open to requests without a key; nginx lets only this machine have `/metrics`.
    var isOpen: Bool { self == .health || self == .metrics }

    private var methods: [String] {
        switch self {
        case .health, .models, .model, .metrics, .responseInput, .backgroundRun, .backgroundRunEvents: ["GET"]
        case .response, .sessions, .session: ["GET", "DELETE"]
        case .chatCompletions, .messages, .run, .completions, .countTokens, .responses, .responseCancel,
            .backgroundRunCancel:
            ["POST"]
        }
    }

    /// The route of a request.
    ///
    /// - Throws: ``APIError`` not_found or method_not_allowed.
    static func of(method: String, path: String) throws(APIError) -> Route {
        guard let route = of(path: path) else {
            throw APIError(
                .notFound,
                "There is nothing at this path. Served are /v1/chat/completions, /v1/completions, /v1/responses, "
                    + "/v1/messages, /v1/messages/count_tokens, /v1/models, /api/run, /api/runs, /api/sessions and /health."
            )
        }
        // HEAD is GET without a body; nginx drops the body.
        guard route.methods.contains(method) || (method == "HEAD" && route.methods.contains("GET")) else {
            let methods = route.methods.joined(separator: ", ")
            throw APIError(
                .methodNotAllowed, "\(route.name) takes \(methods), not this method.", allowedMethods: methods)
        }
        return route
    }

    private static func of(path: String) -> Route? {
        switch path {
        case "/health": return .health
        case "/metrics": return .metrics
        case "/v1/models": return .models
        case "/v1/chat/completions": return .chatCompletions
        case "/v1/completions": return .completions
        case "/v1/messages": return .messages
        case "/v1/messages/count_tokens": return .countTokens
        case "/api/run": return .run
        case "/v1/responses": return .responses
        case "/api/sessions": return .sessions
        default:
            if let route = response(path: path) ?? direct(path: path) { return route }
            let prefix = "/v1/models/"
            guard path.hasPrefix(prefix), path.count > prefix.count else { return nil }
            return .model(id: PercentEncoding.decode(path.dropFirst(prefix.count)))
        }
    }

    private static func response(path: String) -> Route? {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard path.hasPrefix("/v1/responses/"), parts.count >= 4, !parts[3].isEmpty else { return nil }
        let id = String(parts[3])
        switch parts.count {
        case 4: return .response(id: id)
        case 5 where parts[4] == "cancel": return .responseCancel(id: id)
        case 5 where parts[4] == "input_items": return .responseInput(id: id)
        default: return nil
        }
    }

    private static func direct(path: String) -> Route? {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[1] == "api", !parts[3].isEmpty else { return nil }
        let id = PercentEncoding.decode(parts[3])
        switch (parts[2], parts.count) {
        case ("sessions", 4): return .session(id: id)
        case ("runs", 4): return .backgroundRun(id: id)
        case ("runs", 5) where parts[4] == "events": return .backgroundRunEvents(id: id)
        case ("runs", 5) where parts[4] == "cancel": return .backgroundRunCancel(id: id)
        default: return nil
        }
    }

    /// The dialect in which a path that leads nowhere is answered.
    static func dialect(ofPath path: String) -> Dialect {
        if path == "/v1/messages" || path.hasPrefix("/v1/messages/") { return .anthropic }
        return path.hasPrefix("/v1/") ? .openAI : .direct
    }
}

/// Percent-encoding of paths.
enum PercentEncoding {
    /// The text with `%41` and the like decoded; malformed escapes stay as they are.
    static func decode(_ text: some StringProtocol) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
