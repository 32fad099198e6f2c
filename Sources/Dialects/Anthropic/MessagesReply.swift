/// Writes the replies of `POST /v1/messages`.
public enum MessagesReply {
    /// The whole reply.
    public static func whole(_ answer: Answer) -> JSONValue {
        [
            "id": .string(answer.id), "type": "message", "role": "assistant", "model": .string(answer.model),
            "content": .array(answer.blocks.filter { $0.kind != .text || !$0.content.isEmpty }.map(\.json)),
            "stop_reason": .string(answer.stopReason.anthropicName),
            "stop_sequence": answer.stopReason.sequence.map { .string($0) } ?? nil, "usage": answer.usage.messagesJSON,
        ]
    }

    /// The reply of `POST /v1/messages/count_tokens`.
    public static func count(_ answer: Answer) -> JSONValue {
        ["input_tokens": .integer(answer.countedTokens ?? 0)]
    }
}

extension TokenUsage {
    /// The Messages API's `usage` object.
    var messagesJSON: JSONValue {
        [
            "input_tokens": .integer(input), "cache_creation_input_tokens": .integer(cacheCreation),
            "cache_read_input_tokens": .integer(cacheRead),
            "cache_creation": [
                "ephemeral_5m_input_tokens": .integer(cacheCreation - min(cacheCreation, cacheCreationHour)),
                "ephemeral_1h_input_tokens": .integer(cacheCreationHour),
            ],
            "output_tokens": .integer(output), "service_tier": "standard",
        ]
    }

    /// The `usage` of a stream's `message_delta`.
    var messageDeltaJSON: JSONValue {
        [
            "input_tokens": .integer(input), "cache_creation_input_tokens": .integer(cacheCreation),
            "cache_read_input_tokens": .integer(cacheRead), "output_tokens": .integer(output),
        ]
    }
}

/// Writes the Messages API's own event sequence: message_start, then for each block content_block_start,
/// content_block_delta…, content_block_stop, then message_delta, message_stop.
///
/// A run of several model messages is shown as one: its blocks follow each other, the last reason to stop counts.
public struct MessagesStream: StreamEncoder {
    private var isStarted = false
    private var index = 0
    private var ended: (reason: StopReason, usage: TokenUsage)?
    /// Of the open block's deltas.
    private var frame: DeltaFrame?

    /// A stream's encoder.
    public init() {}

    /// Appends the event's events.
    public mutating func encode(_ event: RunEvent, into out: inout [UInt8]) {
        switch event {
        case .messageStarted(let id, let model, let usage):
            guard !isStarted else { return }
            isStarted = true
            append(
                "message_start",
                [
                    "message": [
                        "id": .string(id), "type": "message", "role": "assistant", "model": .string(model),
                        "content": [], "stop_reason": nil, "stop_sequence": nil, "usage": usage.messagesJSON,
                    ]
                ], to: &out)
        case .blockStarted(let kind):
            frame = DeltaFrame { append(delta: Self.delta(kind, .string($0)), to: &$1) }
            append(
                "content_block_start", ["index": .integer(index), "content_block": AnswerBlock(kind).json], to: &out)
        case .text(let piece), .thinking(let piece), .toolInput(let piece): frame?.append(piece, to: &out)
        case .signature(let signature):
            append(delta: ["type": "signature_delta", "signature": .string(signature)], to: &out)
        case .citation(let citation): append(delta: ["type": "citations_delta", "citation": citation], to: &out)
        case .blockEnded:
            append("content_block_stop", ["index": .integer(index)], to: &out)
            index += 1
        case .messageEnded(let stopReason, let usage):
            ended = (stopReason, (ended?.usage ?? TokenUsage()) + usage)
        case .answered:
            let (reason, usage) = ended ?? (.endTurn, TokenUsage())
            append(
                "message_delta",
                [
                    "delta": [
                        "stop_reason": .string(reason.anthropicName),
                        "stop_sequence": reason.sequence.map { .string($0) } ?? nil,
                    ],
                    "usage": usage.messageDeltaJSON,
                ], to: &out)
            append("message_stop", [:], to: &out)
        case .started, .toolResult, .counted, .rateLimit, .finished, .failed: break
        }
    }

    /// Appends the event that ends a stream which fails.
    public mutating func encode(failure error: APIError, requestID: String, into out: inout [UInt8]) {
        Dialect.anthropic.appendErrorEvent(error, requestID: requestID, to: &out)
    }

    private static func delta(_ kind: AnswerBlock.Kind, _ piece: JSONValue) -> JSONValue {
        switch kind {
        case .text: ["type": "text_delta", "text": piece]
        case .thinking, .redactedThinking: ["type": "thinking_delta", "thinking": piece]
        case .toolUse: ["type": "input_json_delta", "partial_json": piece]
        }
    }

    private func append(delta: JSONValue, to out: inout [UInt8]) {
        append("content_block_delta", ["index": .integer(index), "delta": delta], to: &out)
    }

    private func append(_ name: String, _ fields: JSONValue, to out: inout [UInt8]) {
        ServerSentEvents.append(event: name, to: &out)
        let type = JSONObject.Member(key: "type", value: .string(name))
        ServerSentEvents.append(data: .object(JSONObject([type] + (fields.objectValue?.members ?? []))), to: &out)
    }
}
