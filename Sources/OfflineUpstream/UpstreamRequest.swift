import Dialects

/// What the offline upstream looks at in a request's body.
struct UpstreamRequest: Sendable, Equatable {
    /// The model asked for.
    let model: String
    /// Whether the answer is an event stream.
    let isStreaming: Bool
    /// The text of the last message of role `user`, without the reminders that the CLI puts beside it.
    ///
    /// Empty when that message brings tool results only: the directive that called the tool stands in an earlier message
    /// and must not fire again.
    let prompt: String
    /// The token count: a quarter of the bytes of system prompt, messages and tools.
    let inputTokens: Int

    /// Reads a request.
    ///
    /// - Parameter needsMaxTokens: Whether `max_tokens` is required; `count_tokens` has none.
    /// - Throws: What the API answers instead of a message.
    init(_ body: JSONValue, needsMaxTokens: Bool) throws(UpstreamError) {
        func invalid(_ message: String) -> UpstreamError { UpstreamError(status: 400, message: message) }
        guard let model = body["model"]?.stringValue, !model.isEmpty else { throw invalid("model: Field required") }
        guard let messages = body["messages"]?.arrayValue else { throw invalid("messages: Field required") }
        guard !messages.isEmpty else { throw invalid("messages: at least one message is required") }
        if needsMaxTokens, body["max_tokens"]?.intValue == nil { throw invalid("max_tokens: Field required") }
        if model.contains("nope") || model.contains("unknown-model") {
            throw UpstreamError(status: 404, message: "model: \(model)")
        }
        self.model = model
        isStreaming = body["stream"]?.boolValue ?? false
        prompt = Self.prompt(of: messages.last { $0["role"]?.stringValue == "user" }?["content"])
        let parts = [body["system"], body["messages"], body["tools"]].compactMap { $0 }
        inputTokens = max(1, parts.reduce(0) { $0 + Self.textBytes($1) } / 4)
    }

    private static func prompt(of content: JSONValue?) -> String {
        if let text = content?.stringValue { return text }
        let texts = content?.arrayValue?.compactMap { block -> String? in
            block["type"]?.stringValue == "text" ? block["text"]?.stringValue : nil
        }
        return texts?.filter { !isReminder($0) }.joined() ?? ""
    }

    /// Whether a text block is one of those that the CLI adds to a user's message.
    private static func isReminder(_ text: String) -> Bool { text.hasPrefix("<system-reminder>") }

    /// The bytes of all text in a part of the request; an image or document counts as 1500 tokens.
    private static func textBytes(_ value: JSONValue) -> Int {
        switch value {
        case .string(let text): return text.utf8.count
        case .array(let elements): return elements.reduce(0) { $0 + textBytes($1) }
        case .object(let object):
            if object["type"] == "base64" { return 6000 }
            return object.members.reduce(0) { $0 + (uncounted.contains($1.key) ? 0 : textBytes($1.value)) }
        case .null, .bool, .number: return 0
        }
    }

    /// Members that frame the text and are no text themselves.
    private static let uncounted: Set<String> = ["type", "role", "id", "tool_use_id", "cache_control", "signature"]
}
