/// Makes the output items of a response from the parts of an answer.
///
/// Texts in a row are the parts of one message. Ids come from the model message's own and the item's place, so that a stream
/// and the stored response agree.
struct ResponsesOutput: Sendable {
    /// What an item is made of.
    enum Kind: Sendable, Equatable {
        /// What the model says.
        case message
        /// What the model thought.
        case reasoning
        /// A call of one of the caller's functions.
        case call(id: String, name: String)
    }

    private let showsSummary: Bool
    private let includesEncrypted: Bool

    init(_ request: ResponsesRequest) {
        showsSummary = request.showsSummary
        includesEncrypted = request.includesEncrypted
    }

    /// The kind of item that a part goes into; nil for one that is not shown.
    func kind(_ kind: AnswerBlock.Kind) -> Kind? {
        switch kind {
        case .text: .message
        case .thinking: showsSummary || includesEncrypted ? .reasoning : nil
        case .redactedThinking: includesEncrypted ? .reasoning : nil
        case .toolUse(let id, let name): .call(id: id, name: name)
        }
    }

    /// Whether thinking is told as it comes.
    var tellsThinking: Bool { showsSummary }

    /// An item's id.
    ///
    /// - Parameter unique: The model message's id without its prefix.
    static func id(_ kind: Kind, unique: String, index: Int) -> String {
        switch kind {
        case .message: "msg_\(unique)_\(index)"
        case .reasoning: "rs_\(unique)_\(index)"
        case .call: "fc_\(unique)_\(index)"
        }
    }

    /// All items of an answer.
    ///
    /// - Parameter isCut: Whether the answer ended early: the last item is not whole then.
    func items(_ answer: Answer, unique: String, isCut: Bool) -> [JSONValue] {
        var groups: [(kind: Kind, blocks: [AnswerBlock])] = []
        for block in answer.blocks {
            guard let kind = kind(block.kind) else { continue }
            if kind == .message, groups.last?.kind == .message {
                groups[groups.count - 1].blocks.append(block)
            } else {
                groups.append((kind, [block]))
            }
        }
        return groups.enumerated().map { index, group in
            item(
                group.kind, group.blocks, id: Self.id(group.kind, unique: unique, index: index),
                status: isCut && index == groups.count - 1 ? "incomplete" : "completed")
        }
    }

    /// One item; without parts, as it begins.
    func item(_ kind: Kind, _ blocks: [AnswerBlock], id: String, status: String) -> JSONValue {
        switch kind {
        case .message:
            return [
                "id": .string(id), "type": "message", "status": .string(status), "role": "assistant",
                "content": .array(blocks.map { Self.textPart($0.content) }),
            ]
        case .call(let callID, let name):
            return [
                "id": .string(id), "type": "function_call", "status": .string(status), "call_id": .string(callID),
                "name": .string(name), "arguments": .string(blocks.first.map(Self.arguments) ?? ""),
            ]
        case .reasoning:
            let thoughts = blocks.filter { showsSummary && !$0.content.isEmpty }
            var item = JSONObject([
                ("id", .string(id)), ("type", "reasoning"),
                ("summary", .array(thoughts.map { Self.summaryPart($0.content) })),
            ])
            // A thought that was cut short has no signature: the API would not know it again.
            if includesEncrypted, let block = blocks.first, block.kind != .thinking || !block.signature.isEmpty {
                item["encrypted_content"] = .string(ResponsesReasoning.encode(block))
            }
            return .object(item)
        }
    }

    /// What a function is called with; the vendor's clients parse it also where the model wrote nothing.
    static func arguments(_ block: AnswerBlock) -> String { block.content.isEmpty ? "{}" : block.content }

    /// A message's part.
    static func textPart(_ text: String) -> JSONValue {
        ["type": "output_text", "text": .string(text), "annotations": [], "logprobs": []]
    }

    /// A summary's part.
    static func summaryPart(_ text: String) -> JSONValue { ["type": "summary_text", "text": .string(text)] }
}
