import Dialects

extension AnswerPlan {
    /// The number of pieces of content, which stand for output tokens.
    var outputTokens: Int { blocks.reduce(0) { $0 + $1.tokens } }

    /// The `usage` object of a message that begins.
    var startUsage: JSONValue { .object(usage(outputTokens: 1)) }

    /// The `usage` object of a message that is complete.
    var finalUsage: JSONValue {
        var usage = usage(outputTokens: outputTokens)
        let thinking = blocks.count { block in
            switch block {
            case .thinking, .redactedThinking: true
            case .text, .toolUse: false
            }
        }
        if thinking > 0 { usage["output_tokens_details"] = ["thinking_tokens": .integer(thinking)] }
        return .object(usage)
    }

    private func usage(outputTokens: Int) -> JSONObject {
        JSONObject([
            .init(key: "input_tokens", value: .integer(usage.input)),
            .init(key: "cache_creation_input_tokens", value: .integer(usage.cacheCreation)),
            .init(key: "cache_read_input_tokens", value: .integer(usage.cacheRead)),
            .init(key: "output_tokens", value: .integer(outputTokens)),
        ])
    }

    /// The stop sequence, or null.
    var stopSequenceJSON: JSONValue { stopSequence.map(JSONValue.string) ?? nil }

    /// The answer as one Message object.
    var message: JSONValue {
        [
            "id": .string(id), "type": "message", "role": "assistant", "model": .string(model),
            "content": .array(blocks.map(Self.json)), "stop_reason": .string(stopReason),
            "stop_sequence": stopSequenceJSON, "usage": finalUsage,
        ]
    }

    private static func json(_ block: Block) -> JSONValue {
        switch block {
        case .thinking(let text):
            ["type": "thinking", "thinking": .string(text), "signature": .string(signature)]
        case .redactedThinking: ["type": "redacted_thinking", "data": .string(redactedData)]
        case .text(let pieces, nil): ["type": "text", "text": .string(pieces.joined)]
        case .text(let pieces, let quote?):
            ["type": "text", "text": .string(pieces.joined), "citations": [citation(quote)]]
        case .toolUse(let id, let tool, let isWhole):
            [
                "type": "tool_use", "id": .string(id), "name": .string(tool.name),
                "input": isWhole ? tool.input : [:],
            ]
        }
    }

    /// A citation of the start of the first document.
    static func citation(_ text: String) -> JSONValue {
        [
            "type": "char_location", "cited_text": .string(text), "document_index": 0, "document_title": nil,
            "start_char_index": 0, "end_char_index": .integer(text.unicodeScalars.count),
        ]
    }
}
