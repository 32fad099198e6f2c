// Whether a warm process takes a request as a fresh one does.
//
// The system prompt reaches it by a member of `set_model` that a CLI may acknowledge and ignore. So one request is made whose
// upstream is a listener of the service's own, which answers 400 and hands over what it was sent.

/// The proof, on one warm process, that warm processes of this CLI can be used.
public struct ClaudeProof: Sendable {
    /// What the system prompt is, and nothing else in the CLI.
    public static let mark = "Answer as the clerk of warm spares would."
    /// What the user says.
    public static let prompt = "Is this the only message?"
    /// A model that every CLI knows, and not its default: the change must leave no trace in the conversation either.
    public static let model = "haiku"

    private let listener: String
    private var conversation: ClaudeConversation
    private var isListening = false
    /// Whether the CLI has had its answer from the listener, or could not ask: what the listener has got by now counts.
    public private(set) var isOver = false

    /// A proof that begins with ``start()`` in a process that ``ClaudeWarmup`` has made ready.
    ///
    /// - Parameter listener: The base URL of the listener; what is posted to its `/v1/messages` is the proof.
    public init(listener: String) {
        self.listener = listener
        conversation = ClaudeConversation(
            RunRequest(system: [Self.mark], turns: [.init(role: .user, blocks: [RunRequest.Turn.text(Self.prompt)])]),
            model: Self.model, entry: .warm(defaultModel: nil))
    }

    /// The first lines.
    public mutating func start() -> [ClaudeConversation.Action] {
        let environment: JSONValue = [
            "ANTHROPIC_BASE_URL": .string(listener), "CLAUDE_CODE_MAX_RETRIES": "0",
        ]
        return [
            .write(
                ClaudeLine.control(
                    "proof", JSONObject([("subtype", "apply_flag_settings"), ("settings", ["env": environment])])))
        ]
    }

    /// Takes one line of the CLI's output, without its newline.
    public mutating func receive(_ bytes: [UInt8], in range: Range<Int>) -> [ClaudeConversation.Action] {
        guard !isOver, !range.isEmpty else { return [] }
        if isListening { return withoutEvents(conversation.receive(bytes, in: range)) }
        guard let line = try? JSONParser.parse(bytes, in: range) else { return end() }
        guard line["type"] == "control_response", line["response"]?["request_id"] == "proof" else { return [] }
        guard line["response"]?["subtype"] == "success" else { return end() }
        isListening = true
        return withoutEvents(conversation.start())
    }

    /// The CLI's output ended, or the process did.
    public mutating func outputEnded() -> [ClaudeConversation.Action] { isOver ? [] : end() }

    /// Whether what the listener got is what a fresh process would have sent.
    ///
    /// - Parameter body: The request's body.
    public static func isProof(body: JSONValue) -> Bool {
        let system =
            body["system"]?.stringValue.map { [$0] }
            ?? (body["system"]?.arrayValue ?? []).map { $0["text"]?.stringValue ?? "" }
        // What the CLI says by itself: a block before the user's, or in newer ones a message of the role `system`.
        let messages = (body["messages"]?.arrayValue ?? []).filter { $0["role"] != "system" }
        guard system.contains(where: { $0.contains(mark) }), (body["tools"]?.arrayValue ?? []).isEmpty,
            messages.count == 1, messages[0]["role"] == "user"
        else { return false }
        if let text = messages[0]["content"]?.stringValue { return text == prompt }
        let blocks = (messages[0]["content"]?.arrayValue ?? []).filter { block in
            block["text"]?.stringValue?.hasPrefix("<system-reminder>") != true
        }
        return blocks.count == 1 && blocks[0]["type"] == "text" && blocks[0]["text"]?.stringValue == prompt
    }

    private mutating func withoutEvents(_ actions: [ClaudeConversation.Action]) -> [ClaudeConversation.Action] {
        actions.filter { action in
            switch action {
            case .event: return false
            case .end: isOver = true
            case .write: break
            }
            return true
        }
    }

    private mutating func end() -> [ClaudeConversation.Action] {
        isOver = true
        return [.end]
    }
}
