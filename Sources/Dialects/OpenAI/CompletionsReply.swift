/// Writes the replies of `POST /v1/completions`.
public enum CompletionsReply {
    /// The whole reply, one choice an answer.
    ///
    /// - Parameter prompts: What is put before each answer; empty for nothing.
    public static func whole(_ answers: [Answer], prompts: [String], context: ReplyContext) -> JSONValue {
        let usage = answers.dropFirst().reduce(answers.first?.usage ?? TokenUsage()) { $0 + $1.usage }
        let choices = answers.enumerated().map { index, answer -> JSONValue in
            let prompt = index < prompts.count ? prompts[index] : ""
            return choice(prompt + answer.text, index: index, finishReason: answer.stopReason)
        }
        var reply = JSONObject(head(answers.first, context))
        reply["choices"] = .array(choices)
        reply["usage"] = usage.completionsJSON
        return .object(reply)
    }

    fileprivate static func head(_ answer: Answer?, _ context: ReplyContext) -> [(String, JSONValue)] {
        [
            ("id", .string("cmpl-" + OpenAIIdentifier.unique(answer?.id ?? "", context))),
            ("object", "text_completion"), ("created", .integer(context.created)),
            ("model", .string(answer?.model ?? "")), ("system_fingerprint", .string(context.fingerprint)),
        ]
    }

    fileprivate static func choice(_ text: String, index: Int, finishReason: StopReason?) -> JSONValue {
        [
            "index": .integer(index), "text": .string(text), "logprobs": nil,
            "finish_reason": finishReason.map { .string(name($0)) } ?? nil,
        ]
    }

    private static func name(_ reason: StopReason) -> String {
        reason.openAIName == "tool_calls" ? "stop" : reason.openAIName
    }
}

/// Writes the chunks of a streamed text completion.
public struct CompletionsStream: StreamEncoder {
    private let context: ReplyContext
    private let options: ReplyOptions
    /// One a choice: what is put before its answer.
    private let prompts: [String]
    private var head: [(String, JSONValue)] = []
    /// Of the choice's deltas.
    private var frame: DeltaFrame?
    private var choice = 0
    private var hasBegun = false
    private var ended: (reason: StopReason, usage: TokenUsage)?
    private var usage = TokenUsage()

    /// A stream's encoder, of as many choices as there are prompts.
    public init(context: ReplyContext, options: ReplyOptions, prompts: [String]) {
        self.context = context
        self.options = options
        self.prompts = prompts
    }

    /// Appends the event's chunks.
    public mutating func encode(_ event: RunEvent, into out: inout [UInt8]) {
        switch event {
        case .messageStarted(let id, let model, let usage):
            if head.isEmpty {
                var answer = Answer()
                answer.append(.messageStarted(id: id, model: model, usage: usage))
                head = CompletionsReply.head(answer, context)
            }
            frame = DeltaFrame { piece, out in
                append([CompletionsReply.choice(piece, index: choice, finishReason: nil)], nil, to: &out)
            }
            if !hasBegun, !prompts[choice].isEmpty { frame?.append(prompts[choice], to: &out) }
            hasBegun = true
        case .text(let piece): frame?.append(piece, to: &out)
        case .messageEnded(let stopReason, let usage):
            ended = (stopReason, (ended?.usage ?? TokenUsage()) + usage)
        case .answered:
            append([CompletionsReply.choice("", index: choice, finishReason: ended?.reason ?? .endTurn)], nil, to: &out)
            usage = usage + (ended?.usage ?? TokenUsage())
            choice += 1
            hasBegun = false
            ended = nil
            guard choice == prompts.count else { return }
            if options.includesUsage { append([], usage, to: &out) }
            JSONWriter.append(raw: "data: [DONE]\n\n", to: &out)
        default: break
        }
    }

    /// Appends the event that ends a stream which fails.
    public mutating func encode(failure error: APIError, requestID: String, into out: inout [UInt8]) {
        Dialect.openAI.appendErrorEvent(error, requestID: requestID, to: &out)
    }

    private func append(_ choices: [JSONValue], _ usage: TokenUsage?, to out: inout [UInt8]) {
        var chunk = JSONObject(head)
        chunk["choices"] = .array(choices)
        if options.includesUsage { chunk["usage"] = usage?.completionsJSON ?? .null }
        ServerSentEvents.append(data: .object(chunk), to: &out)
    }
}
