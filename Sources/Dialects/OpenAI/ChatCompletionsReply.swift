/// Writes the replies of `POST /v1/chat/completions`.
public enum ChatCompletionsReply {
    /// The whole reply.
    public static func whole(_ answer: Answer, context: ReplyContext) -> JSONValue {
        [
            "id": .string(id(answer.id, context)), "object": "chat.completion", "created": .integer(context.created),
            "model": .string(answer.model),
            "choices": [
                [
                    "index": 0,
                    "message": [
                        "role": "assistant", "content": .string(answer.text), "refusal": nil, "annotations": [],
                    ],
                    "logprobs": nil, "finish_reason": .string(answer.stopReason.openAIName),
                ]
            ],
            "usage": answer.usage.openAIJSON,
        ]
    }

    /// `chatcmpl-` and the model message's own id, so that one answer can be found in both worlds.
    fileprivate static func id(_ messageID: String, _ context: ReplyContext) -> String {
        let unique = messageID.hasPrefix("msg_") ? messageID.dropFirst(4) : Substring(messageID)
        return "chatcmpl-" + (unique.isEmpty ? Substring(context.requestID) : unique)
    }
}

/// Writes the chunks of a streamed chat completion.
public struct ChatCompletionsStream: StreamEncoder {
    private let context: ReplyContext
    private let includesUsage: Bool
    /// Everything of a chunk before its `choices`, the same for all chunks of a stream.
    private var head: [UInt8] = []
    private var usage = TokenUsage()

    /// A stream's encoder.
    ///
    /// - Parameter includesUsage: Whether a last chunk has the usage (`stream_options.include_usage`).
    public init(context: ReplyContext, includesUsage: Bool) {
        self.context = context
        self.includesUsage = includesUsage
    }

    /// Appends the event's chunks.
    public mutating func encode(_ event: RunEvent, into out: inout [UInt8]) {
        switch event {
        case .messageStarted(let id, let model, _):
            guard head.isEmpty else { return }
            makeHead(id: ChatCompletionsReply.id(id, context), model: model)
            appendChunk(delta: #"{"role":"assistant","content":"","refusal":null}"#, finishReason: nil, to: &out)
        case .text(let piece):
            out.append(contentsOf: head)
            JSONWriter.append(raw: #"[{"index":0,"delta":{"content":"#, to: &out)
            JSONWriter.append(string: piece, to: &out)
            JSONWriter.append(raw: #"},"logprobs":null,"finish_reason":null}]"#, to: &out)
            appendTail(usage: includesUsage ? "null" : nil, to: &out)
        case .messageEnded(let stopReason, let usage):
            self.usage = usage
            appendChunk(delta: "{}", finishReason: stopReason.openAIName, to: &out)
        case .answered:
            if includesUsage {
                out.append(contentsOf: head)
                JSONWriter.append(raw: "[]", to: &out)
                var text: [UInt8] = []
                JSONWriter.append(usage.openAIJSON, to: &text)
                appendTail(usage: String(decoding: text, as: UTF8.self), to: &out)
            }
            JSONWriter.append(raw: "data: [DONE]\n\n", to: &out)
        case .started, .finished, .failed: break
        }
    }

    private mutating func makeHead(id: String, model: String) {
        JSONWriter.append(raw: #"data: {"id":"#, to: &head)
        JSONWriter.append(string: id, to: &head)
        JSONWriter.append(raw: #","object":"chat.completion.chunk","created":\#(context.created),"model":"#, to: &head)
        JSONWriter.append(string: model, to: &head)
        JSONWriter.append(raw: #","choices":"#, to: &head)
    }

    private func appendChunk(delta: String, finishReason: String?, to out: inout [UInt8]) {
        out.append(contentsOf: head)
        let reason = finishReason.map { "\"\($0)\"" } ?? "null"
        JSONWriter.append(raw: #"[{"index":0,"delta":\#(delta),"logprobs":null,"finish_reason":\#(reason)}]"#, to: &out)
        appendTail(usage: includesUsage ? "null" : nil, to: &out)
    }

    private func appendTail(usage: String?, to out: inout [UInt8]) {
        if let usage { JSONWriter.append(raw: #","usage":\#(usage)"#, to: &out) }
        JSONWriter.append(raw: "}\n\n", to: &out)
    }
}
