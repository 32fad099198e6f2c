/// Writes the replies of `POST /v1/messages`.
public enum MessagesReply {
    /// The whole reply.
    public static func whole(_ answer: Answer) -> JSONValue {
        [
            "id": .string(answer.id), "type": "message", "role": "assistant", "model": .string(answer.model),
            "content": answer.text.isEmpty ? [] : [RunRequest.Turn.text(answer.text)],
            "stop_reason": .string(answer.stopReason.anthropicName), "stop_sequence": nil,
            "usage": answer.usage.anthropicJSON,
        ]
    }
}

/// Writes the Messages API's own event sequence: message_start, content_block_start, content_block_delta…,
/// content_block_stop, message_delta, message_stop.
public struct MessagesStream: StreamEncoder {
    private var isBlockOpen = false
    private var isMessageOpen = false

    /// A stream's encoder.
    public init() {}

    /// Appends the event's events.
    public mutating func encode(_ event: RunEvent, into out: inout [UInt8]) {
        switch event {
        case .messageStarted(let id, let model, let usage):
            guard !isMessageOpen else { return }
            isMessageOpen = true
            append(
                "message_start",
                [
                    "message": [
                        "id": .string(id), "type": "message", "role": "assistant", "model": .string(model),
                        "content": [],
                        "stop_reason": nil, "stop_sequence": nil, "usage": usage.anthropicJSON,
                    ]
                ], to: &out)
        case .text(let piece):
            if !isBlockOpen {
                isBlockOpen = true
                append("content_block_start", ["index": 0, "content_block": RunRequest.Turn.text("")], to: &out)
            }
            ServerSentEvents.append(event: "content_block_delta", to: &out)
            JSONWriter.append(
                raw: #"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"#, to: &out)
            JSONWriter.append(string: piece, to: &out)
            JSONWriter.append(raw: "}}\n\n", to: &out)
        case .messageEnded(let stopReason, let usage):
            if isBlockOpen { append("content_block_stop", ["index": 0], to: &out) }
            isBlockOpen = false
            append(
                "message_delta",
                [
                    "delta": ["stop_reason": .string(stopReason.anthropicName), "stop_sequence": nil],
                    "usage": usage.anthropicJSON,
                ], to: &out)
        case .answered:
            append("message_stop", [:], to: &out)
        case .started, .finished, .failed: break
        }
    }

    private func append(_ name: String, _ fields: JSONValue, to out: inout [UInt8]) {
        ServerSentEvents.append(event: name, to: &out)
        let type = JSONObject.Member(key: "type", value: .string(name))
        ServerSentEvents.append(data: .object(JSONObject([type] + (fields.objectValue?.members ?? []))), to: &out)
    }
}
