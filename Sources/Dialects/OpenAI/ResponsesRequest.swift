/// A decoded `POST /v1/responses`.
///
/// It is decoded in two steps, because what it continues is in the store: ``decode(_:)`` takes what was sent, ``prepend(_:)``
/// puts the stored conversation in front of it, and ``finish()`` checks the whole.
///
/// Source: `openai.types.responses` of the vendor's Python SDK, and the Open Responses specification of 2026-04-24.
public struct ResponsesRequest: Sendable, Equatable {
    /// The run.
    public var run: RunRequest
    /// The response that this one continues.
    public var previousID: String?
    /// Whether the response is kept.
    public var isStored: Bool
    /// Whether the caller wants the id now and the answer later.
    public var isBackground: Bool
    /// The request parameters that the response object repeats, with the vendor's defaults.
    public var echo: JSONObject
    /// This request's input as items, as they were sent.
    public var input: [JSONValue]
    /// Whether the reasoning items have summaries.
    public var showsSummary: Bool { run.thinking == .summarized }
    /// Whether the reasoning items have `encrypted_content`.
    public var includesEncrypted: Bool

    private static let used: Set<String> = [
        "model", "input", "instructions", "stream", "store", "background", "previous_response_id", "tools",
        "tool_choice", "parallel_tool_calls", "text", "reasoning", "include", "max_output_tokens", "metadata",
        "stream_options",
    ]

    /// The request.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue) throws(APIError) -> ResponsesRequest {
        let fields = try FieldReader(json, path: "")
        try ResponsesParameters.check(fields)
        var run = RunRequest(
            model: try fields.string("model"), turns: [],
            maxOutputTokens: try fields.positiveInteger("max_output_tokens"),
            isStreaming: try fields.bool("stream") ?? false,
            ignoredParameters: fields.names.filter { !used.contains($0) })
        if fields.value("truncation") == "disabled" { run.ignoredParameters.removeAll { $0 == "truncation" } }
        if let instructions = try fields.string("instructions"), !instructions.isBlank { run.system = [instructions] }
        let reasoning = try ResponsesParameters.decodeReasoning(fields, &run)
        let input = try ResponsesInput.append(fields, to: &run)
        try ResponsesTools.decode(fields, &run)
        let text = try ResponsesParameters.decodeText(fields, &run)
        let isStored = try fields.bool("store") ?? true
        let isBackground = try fields.bool("background") ?? false
        guard isStored || !isBackground else {
            throw .invalid("background", "`background` needs `store`: the answer is fetched from there.")
        }
        return ResponsesRequest(
            run: run, previousID: try fields.string("previous_response_id"), isStored: isStored,
            isBackground: isBackground, echo: ResponsesParameters.echo(fields, reasoning: reasoning, text: text),
            input: input, includesEncrypted: try ResponsesParameters.includesEncrypted(fields))
    }

    /// Puts the conversation that this request continues in front of its own input.
    public mutating func prepend(_ conversation: Conversation) {
        let hasInstructions = echo["instructions"]?.stringValue?.isBlank == false
        run.system.insert(contentsOf: conversation.system, at: hasInstructions ? 1 : 0)
        prepend(conversation.turns)
    }

    /// Puts turns in front of the request's own.
    public mutating func prepend(_ turns: [RunRequest.Turn]) {
        let own = run.turns
        run.turns = turns
        for turn in own { run.append(turn.role, turn.blocks) }
    }

    /// Checks the whole conversation; nothing may be put in front of it afterwards.
    public mutating func finish() throws(APIError) {
        dropThoughts()
        try run.requireUserTurnLast("input")
        try run.requireToolResults("input")
        if run.tools.isEmpty {
            run.tools = FunctionTools.historical(run.turns)
            if !run.tools.isEmpty { run.toolChoice = FunctionTools.choice("none", isParallel: true) }
        }
    }

    /// A thought without an answer is nothing that the API takes.
    private mutating func dropThoughts() {
        let isThought: (JSONValue) -> Bool = { $0["type"] == "thinking" || $0["type"] == "redacted_thinking" }
        let turns = run.turns
        guard turns.contains(where: { $0.role == .assistant && $0.blocks.allSatisfy(isThought) }) else { return }
        run.turns = []
        for turn in turns where turn.role == .user || !turn.blocks.allSatisfy(isThought) {
            run.append(turn.role, turn.blocks)
        }
    }

    /// The input as `GET /v1/responses/ID/input_items` lists it, in the order it was sent.
    public func inputItems(responseID: String) -> [JSONValue] {
        ResponsesInputItems.items(input, unique: ResponsesReply.unique(responseID))
    }

    /// The conversation with the answer, for the request that continues it.
    ///
    /// - Parameter answer: Nil where there is none: a failed response can be continued as well.
    public func conversation(with answer: Answer?) -> Conversation {
        let hasInstructions = echo["instructions"]?.stringValue?.isBlank == false
        var whole = RunRequest(turns: run.turns)
        if let blocks = answer?.turnBlocks, !blocks.isEmpty { whole.append(.assistant, blocks) }
        return Conversation(system: Array(run.system.dropFirst(hasInstructions ? 1 : 0)), turns: whole.turns)
    }
}
