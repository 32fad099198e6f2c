/// What is kept of a conversation for the request that continues it: with `previous_response_id`, or in a session.
///
/// The turns are in the Messages API's form: thinking with its signature, and calls of tools, go back as they came. Of a
/// response `instructions` are not carried over, but system messages of the input are part of the conversation.
public struct Conversation: Sendable, Equatable {
    /// The system messages in order.
    public var system: [String]
    /// All turns, with the answer.
    public var turns: [RunRequest.Turn]

    /// A conversation.
    public init(system: [String] = [], turns: [RunRequest.Turn] = []) {
        self.system = system
        self.turns = turns
    }

    /// From what ``json`` wrote; nil for anything else.
    public init?(_ json: JSONValue) {
        guard let system = json["system"]?.arrayValue, let turns = json["turns"]?.arrayValue else { return nil }
        self.init(system: system.compactMap(\.stringValue))
        for turn in turns {
            guard let role = turn["role"]?.stringValue.flatMap(RunRequest.Role.init(rawValue:)),
                let blocks = turn["content"]?.arrayValue
            else { return nil }
            self.turns.append(RunRequest.Turn(role: role, blocks: blocks))
        }
    }

    /// The conversation for the store.
    public var json: JSONValue {
        [
            "system": .array(system.map { .string($0) }),
            "turns": .array(
                turns.map { turn in ["role": .string(turn.role.rawValue), "content": .array(turn.blocks)] }),
        ]
    }
}

extension Answer {
    /// The assistant's turn as it goes into the history; empty where the API would take nothing of it.
    ///
    /// What an answer that was cut short left unfinished can't be sent again: a thought without its signature, a call
    /// without all of its input. A turn of thoughts alone is none.
    public var turnBlocks: [JSONValue] {
        let kept = blocks.filter { block in
            switch block.kind {
            case .text: !block.content.isBlank
            case .thinking: !block.signature.isEmpty
            case .redactedThinking: true
            case .toolUse: block.content.isEmpty || (try? JSONParser.parse(Array(block.content.utf8))) != nil
            }
        }
        return kept.allSatisfy(\.isThought) ? [] : kept.map(\.json)
    }
}

extension AnswerBlock {
    /// Whether it is the model's thinking, readable or not.
    var isThought: Bool {
        switch kind {
        case .thinking, .redactedThinking: true
        case .text, .toolUse: false
        }
    }
}
