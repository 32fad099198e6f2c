/// Writes the replies of `POST /v1/chat/completions`.
public enum ChatCompletionsReply {
    /// The whole reply, one choice an answer.
    public static func whole(_ answers: [Answer], options: ReplyOptions, context: ReplyContext) -> JSONValue {
        let usage = answers.dropFirst().reduce(answers.first?.usage ?? TokenUsage()) { $0 + $1.usage }
        var reply = JSONObject([
            ("id", .string(id(answers.first?.id ?? "", context))), ("object", "chat.completion"),
            ("created", .integer(context.created)), ("model", .string(answers.first?.model ?? "")),
            ("choices", .array(answers.enumerated().map { choice($1, index: $0, options) })),
            ("usage", usage.completionsJSON), ("service_tier", "default"),
            ("system_fingerprint", .string(context.fingerprint)),
        ])
        if let session = context.sessionID { reply["session_id"] = .string(session) }
        return .object(reply)
    }

    private static func choice(_ answer: Answer, index: Int, _ options: ReplyOptions) -> JSONValue {
        let calls = answer.toolCalls
        let text = answer.text
        var message = JSONObject([
            ("role", "assistant"), ("content", text.isEmpty && !calls.isEmpty ? nil : .string(text)), ("refusal", nil),
            ("annotations", []),
        ])
        if options.showsThinking, !answer.thinking.isEmpty { message["reasoning_content"] = .string(answer.thinking) }
        if options.usesLegacyFunctions, let call = calls.first {
            message["function_call"] = ["name": .string(call.name), "arguments": .string(call.input)]
        } else if !calls.isEmpty {
            message["tool_calls"] = .array(
                calls.map { call in
                    [
                        "id": .string(call.id), "type": "function",
                        "function": ["name": .string(call.name), "arguments": .string(call.input)],
                    ]
                })
        }
        return [
            "index": .integer(index), "message": .object(message), "logprobs": nil,
            "finish_reason": .string(finishReason(answer.stopReason, options)),
        ]
    }

    /// `chatcmpl-` and the model message's own id, so that one answer can be found in both worlds.
    fileprivate static func id(_ messageID: String, _ context: ReplyContext) -> String {
        "chatcmpl-" + OpenAIIdentifier.unique(messageID, context)
    }

    fileprivate static func finishReason(_ reason: StopReason, _ options: ReplyOptions) -> String {
        reason == .toolUse && options.usesLegacyFunctions ? "function_call" : reason.openAIName
    }
}

/// Identifiers in OpenAI's replies.
enum OpenAIIdentifier {
    /// The model message's id without its prefix; the request's id where there is none.
    static func unique(_ messageID: String, _ context: ReplyContext) -> String {
        let unique = messageID.hasPrefix("msg_") ? messageID.dropFirst(4) : Substring(messageID)
        return unique.isEmpty ? context.requestID : String(unique)
    }
}

/// Writes the chunks of a streamed chat completion.
public struct ChatCompletionsStream: StreamEncoder {
    private let context: ReplyContext
    private let options: ReplyOptions
    private let choiceCount: Int
    /// Everything of a chunk before its `choices`, the same for all chunks of a stream.
    private var head: [UInt8] = []
    /// The choice that is being written.
    private var choice = 0
    private var hasRole = false
    private var toolCount = 0
    private var isToolEmpty = false
    /// Of the open block's deltas; nil where they are not shown.
    private var frame: DeltaFrame?
    private var ended: (reason: StopReason, usage: TokenUsage)?
    private var usage = TokenUsage()

    /// A stream's encoder.
    public init(context: ReplyContext, options: ReplyOptions, choiceCount: Int = 1) {
        self.context = context
        self.options = options
        self.choiceCount = choiceCount
    }

    /// Appends the event's chunks.
    public mutating func encode(_ event: RunEvent, into out: inout [UInt8]) {
        switch event {
        case .messageStarted(let id, let model, _):
            if head.isEmpty { makeHead(id: ChatCompletionsReply.id(id, context), model: model) }
        case .text(let piece), .thinking(let piece): frame?.append(piece, to: &out)
        case .blockStarted(let kind):
            if case .toolUse(let id, let name) = kind {
                toolStarted(id: id, name: name, to: &out)
            } else {
                appendRole(content: #""""#, to: &out)
            }
            frame = deltaFrame(kind)
        case .toolInput(let piece):
            guard !piece.isEmpty else { break }
            isToolEmpty = false
            frame?.append(piece, to: &out)
        case .blockEnded:
            // The vendor's clients parse what a tool is called with, also where the model wrote nothing.
            if isToolEmpty { frame?.append("{}", to: &out) }
            isToolEmpty = false
            frame = nil
        case .messageEnded(let stopReason, let usage):
            ended = (stopReason, (ended?.usage ?? TokenUsage()) + usage)
        case .answered: answered(to: &out)
        case .started, .citation, .signature, .toolResult, .counted, .rateLimit, .finished, .failed: break
        }
    }

    /// Appends the event that ends a stream which fails.
    public mutating func encode(failure error: APIError, requestID: String, into out: inout [UInt8]) {
        Dialect.openAI.appendErrorEvent(error, requestID: requestID, to: &out)
    }

    private mutating func toolStarted(id: String, name: String, to out: inout [UInt8]) {
        appendRole(content: "null", to: &out)
        isToolEmpty = true
        toolCount += 1
        var quoted: [UInt8] = []
        JSONWriter.append(string: name, to: &quoted)
        let function = #"{"name":\#(String(decoding: quoted, as: UTF8.self)),"arguments":""}"#
        if options.usesLegacyFunctions {
            appendChunk(delta: #"{"function_call":\#(function)}"#, finishReason: nil, to: &out)
        } else {
            var quotedID: [UInt8] = []
            JSONWriter.append(string: id, to: &quotedID)
            let id = String(decoding: quotedID, as: UTF8.self)
            let call = #"{"index":\#(toolCount - 1),"id":\#(id),"type":"function","function":\#(function)}"#
            appendChunk(delta: #"{"tool_calls":[\#(call)]}"#, finishReason: nil, to: &out)
        }
    }

    private mutating func answered(to out: inout [UInt8]) {
        appendRole(content: #""""#, to: &out)
        let reason = ChatCompletionsReply.finishReason(ended?.reason ?? .endTurn, options)
        appendChunk(delta: "{}", finishReason: reason, to: &out)
        usage = usage + (ended?.usage ?? TokenUsage())
        choice += 1
        hasRole = false
        toolCount = 0
        ended = nil
        guard choice == choiceCount else { return }
        if options.includesUsage {
            out.append(contentsOf: head)
            JSONWriter.append(raw: "[]", to: &out)
            var text: [UInt8] = []
            JSONWriter.append(usage.completionsJSON, to: &text)
            appendTail(usage: String(decoding: text, as: UTF8.self), to: &out)
        }
        JSONWriter.append(raw: "data: [DONE]\n\n", to: &out)
    }

    private mutating func makeHead(id: String, model: String) {
        JSONWriter.append(raw: #"data: {"id":"#, to: &head)
        JSONWriter.append(string: id, to: &head)
        JSONWriter.append(raw: #","object":"chat.completion.chunk","created":\#(context.created),"model":"#, to: &head)
        JSONWriter.append(string: model, to: &head)
        JSONWriter.append(raw: #","service_tier":"default","system_fingerprint":"#, to: &head)
        JSONWriter.append(string: context.fingerprint, to: &head)
        if let session = context.sessionID {
            JSONWriter.append(raw: #","session_id":"#, to: &head)
            JSONWriter.append(string: session, to: &head)
        }
        JSONWriter.append(raw: #","choices":"#, to: &head)
    }

    /// A choice's first chunk: who speaks.
    ///
    /// A message that only calls tools has no content.
    private mutating func appendRole(content: String, to out: inout [UInt8]) {
        guard !hasRole else { return }
        hasRole = true
        appendChunk(delta: #"{"role":"assistant","content":\#(content),"refusal":null}"#, finishReason: nil, to: &out)
    }

    private func deltaFrame(_ kind: AnswerBlock.Kind) -> DeltaFrame? {
        switch kind {
        case .text: deltaFrame { ["content": $0] }
        case .thinking, .redactedThinking: options.showsThinking ? deltaFrame { ["reasoning_content": $0] } : nil
        case .toolUse where options.usesLegacyFunctions: deltaFrame { ["function_call": ["arguments": $0]] }
        case .toolUse:
            deltaFrame { ["tool_calls": [["index": .integer(toolCount - 1), "function": ["arguments": $0]]]] }
        }
    }

    private func deltaFrame(_ delta: (JSONValue) -> JSONValue) -> DeltaFrame {
        DeltaFrame { piece, out in
            let text = String(decoding: JSONWriter.bytes(delta(.string(piece))), as: UTF8.self)
            appendChunk(delta: text, finishReason: nil, to: &out)
        }
    }

    private func appendChunk(delta: String, finishReason: String?, to out: inout [UInt8]) {
        out.append(contentsOf: head)
        let reason = finishReason.map { "\"\($0)\"" } ?? "null"
        JSONWriter.append(
            raw: #"[{"index":\#(choice),"delta":\#(delta),"logprobs":null,"finish_reason":\#(reason)}]"#, to: &out)
        appendTail(usage: options.includesUsage ? "null" : nil, to: &out)
    }

    private func appendTail(usage: String?, to out: inout [UInt8]) {
        if let usage { JSONWriter.append(raw: #","usage":\#(usage)"#, to: &out) }
        JSONWriter.append(raw: "}\n\n", to: &out)
    }
}
