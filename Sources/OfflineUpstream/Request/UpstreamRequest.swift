import Dialects

/// What the offline upstream looks at in a request's body.
struct UpstreamRequest: Sendable, Equatable {
    /// A tool that the request offers.
    struct Tool: Sendable, Equatable {
        /// Its name.
        let name: String
        /// The schema of its input; empty for the vendor's own tools.
        let schema: JSONValue
    }

    /// Which tools the answer may or must call: `tool_choice`.
    enum ToolChoice: Sendable, Equatable {
        case auto
        case none
        case any
        case tool(String)
    }

    /// Whether the answer may have thinking blocks.
    enum Thinking: Sendable, Equatable {
        case off
        case shown
        /// The block has a signature and no text.
        case omitted
    }

    /// The CLI's tool for an answer in a schema.
    static let outputTool = "StructuredOutput"

    /// The model asked for.
    let model: String
    /// Whether the answer is an event stream.
    let isStreaming: Bool
    /// What the last message asks for.
    let turn: Turn
    /// The token count: a quarter of the bytes of system prompt, messages and tools.
    let inputTokens: Int
    /// The longest answer; nil only for `count_tokens`.
    let maximumTokens: Int?
    /// The texts at which the answer ends.
    let stopSequences: [String]
    /// The tools on offer, in order.
    let tools: [Tool]
    /// Which of them to call.
    let toolChoice: ToolChoice
    /// Whether one answer may call several tools.
    let allowsParallelCalls: Bool
    /// Whether the answer may think.
    let thinking: Thinking

    /// Reads a request.
    ///
    /// - Parameter needsMaxTokens: Whether `max_tokens` is required; `count_tokens` has none.
    /// - Throws: What the API answers instead of a message.
    init(_ body: JSONValue, needsMaxTokens: Bool) throws(UpstreamError) {
        guard let model = body["model"]?.stringValue, !model.isEmpty else { throw .invalid("model: Field required") }
        guard let messages = body["messages"]?.arrayValue else { throw .invalid("messages: Field required") }
        guard !messages.isEmpty else { throw .invalid("messages: at least one message is required") }
        if needsMaxTokens, body["max_tokens"]?.intValue == nil { throw .invalid("max_tokens: Field required") }
        if model.contains("nope") || model.contains("unknown-model") {
            throw UpstreamError(status: 404, message: "model: \(model)")
        }
        try RequestRules.check(body)
        try MessageRules.check(messages)
        self.model = model
        isStreaming = body["stream"]?.boolValue ?? false
        turn = Turn(messages)
        inputTokens = TokenCount.tokens(of: [body["system"], body["messages"], body["tools"]])
        maximumTokens = body["max_tokens"]?.intValue
        stopSequences = body["stop_sequences"]?.arrayValue?.compactMap(\.stringValue) ?? []
        tools = (body["tools"]?.arrayValue ?? []).compactMap { tool in
            tool["name"]?.stringValue.map { Tool(name: $0, schema: tool["input_schema"] ?? [:]) }
        }
        toolChoice =
            switch body["tool_choice"]?["type"] {
            case "none": .none
            case "any": .any
            case "tool": .tool(body["tool_choice"]?["name"]?.stringValue ?? "")
            default: .auto
            }
        allowsParallelCalls = body["tool_choice"]?["disable_parallel_tool_use"]?.boolValue != true
        thinking =
            switch body["thinking"]?["type"] {
            case "enabled", "adaptive": body["thinking"]?["display"] == "omitted" ? .omitted : .shown
            default: .off
            }
    }

    /// The text of the last user message: see ``Turn/prompt``.
    var prompt: String { turn.prompt }

    /// The tool that the answer must call, if there is one.
    var forcedTool: Tool? {
        switch toolChoice {
        case .auto, .none: nil
        case .any: tools.first
        case .tool(let name): tools.first { $0.name == name }
        }
    }
}

/// The offline upstream's idea of a token: four bytes.
enum TokenCount {
    /// A quarter of the bytes of all text in these parts of a request, at least 1; an image or a PDF is 1500 tokens.
    static func tokens(of parts: [JSONValue?]) -> Int {
        max(1, parts.reduce(0) { $0 + ($1.map(textBytes) ?? 0) } / 4)
    }

    private static func textBytes(_ value: JSONValue) -> Int {
        switch value {
        case .string(let text): return text.utf8.count
        case .array(let elements): return elements.reduce(0) { $0 + textBytes($1) }
        case .object(let object):
            if isFile(object) { return 6000 }
            return object.members.reduce(0) { $0 + (uncounted.contains($1.key) ? 0 : textBytes($1.value)) }
        case .null, .bool, .number: return 0
        }
    }

    /// Whether this is the source of an image or a PDF.
    private static func isFile(_ object: JSONObject) -> Bool {
        switch object["type"] {
        case "base64": object["data"] != nil
        case "url": object["url"] != nil
        case "file": object["file_id"] != nil
        default: false
        }
    }

    /// Members that frame the text and are no text themselves.
    private static let uncounted: Set<String> = ["type", "role", "id", "tool_use_id", "cache_control", "signature"]
}
