/// A part of the model's answer.
public struct AnswerBlock: Sendable, Equatable {
    /// What a part is.
    public enum Kind: Sendable, Equatable {
        /// Text for the caller.
        case text
        /// What the model thought.
        case thinking
        /// Thinking that only the API can read.
        case redactedThinking(data: String)
        /// A call of one of the caller's tools.
        case toolUse(id: String, name: String)
    }

    /// What it is.
    public var kind: Kind
    /// Its text, its thought, or the JSON that the tool is called with.
    public var content = ""
    /// The signature of a thought.
    public var signature = ""
    /// A text's references to documents, in the Messages API's form.
    public var citations: [JSONValue] = []

    /// A part.
    public init(_ kind: Kind, content: String = "") {
        self.kind = kind
        self.content = content
    }

    /// The block as the Messages API has it, as it goes into a reply and back into a history.
    public var json: JSONValue {
        switch kind {
        case .text:
            citations.isEmpty
                ? RunRequest.Turn.text(content)
                : ["type": "text", "text": .string(content), "citations": .array(citations)]
        case .thinking: ["type": "thinking", "thinking": .string(content), "signature": .string(signature)]
        case .redactedThinking(let data): ["type": "redacted_thinking", "data": .string(data)]
        case .toolUse(let id, let name):
            ["type": "tool_use", "id": .string(id), "name": .string(name), "input": input]
        }
    }

    /// What a tool is called with; an empty object where the model wrote nothing.
    public var input: JSONValue {
        (try? JSONParser.parse(Array(content.utf8))) ?? [:]
    }
}

/// How full the account's limits are, as the CLI reports for accounts that have such.
public struct RateLimit: Sendable, Equatable {
    /// `allowed`, `allowed_warning` or `rejected`.
    public var status: String
    /// The limit that counts, such as `five_hour`.
    public var type: String?
    /// How much of it is used up, 1 for all.
    public var utilization: Double?
    /// When it begins anew, in seconds since 1970.
    public var resetsAt: Int?

    /// From the `rate_limit_info` of a `rate_limit_event` line (transcript `rate-limit`).
    public init?(_ json: JSONValue?) {
        guard let status = json?["status"]?.stringValue else { return nil }
        self.status = status
        type = json?["rateLimitType"]?.stringValue
        utilization = json?["utilization"]?.doubleValue
        resetsAt = json?["resetsAt"]?.intValue
    }
}
