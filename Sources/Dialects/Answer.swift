/// A run's answer, collected for a reply that is not streamed.
public struct Answer: Sendable, Equatable {
    /// The model message's id; the first one's where a run has several.
    public private(set) var id = ""
    /// The model that answered.
    public private(set) var model = ""
    /// The parts of the answer, over all messages.
    public private(set) var blocks: [AnswerBlock] = []
    /// Why the last message ended.
    public private(set) var stopReason = StopReason.endTurn
    /// Tokens of all messages; where a run had several, the CLI's own sum once it is there.
    public private(set) var usage = TokenUsage()
    /// The CLI session's id.
    public private(set) var sessionID = ""
    /// The CLI's own report, when the run is finished.
    public private(set) var summary: RunSummary?
    /// The prompt's tokens, where only they were asked for.
    public private(set) var countedTokens: Int?
    /// Tokens and number of parts of the messages that have ended.
    private var endedUsage = TokenUsage()
    private var endedBlocks = 0
    /// How many messages of the model's have ended.
    public private(set) var messageCount = 0
    /// Where the parts of the last message begin.
    private var lastMessageStart = 0

    /// An empty answer.
    public init() {}

    /// Takes in what happened.
    public mutating func append(_ event: RunEvent) {
        switch event {
        case .started(let sessionID, let model):
            self.sessionID = sessionID
            self.model = model
        case .messageStarted(let id, let model, let usage):
            // What is left of a message that broke off is not part of the answer.
            blocks.removeLast(blocks.count - endedBlocks)
            lastMessageStart = endedBlocks
            if self.id.isEmpty || endedBlocks == 0 { self.id = id }
            if !model.isEmpty { self.model = model }
            self.usage = endedUsage + usage
        case .blockStarted(let kind): blocks.append(AnswerBlock(kind))
        case .text(let piece), .thinking(let piece), .toolInput(let piece): last { $0.content += piece }
        case .signature(let piece): last { $0.signature += piece }
        case .citation(let citation): last { $0.citations.append(citation) }
        case .messageEnded(let stopReason, let usage):
            self.stopReason = stopReason
            endedUsage = endedUsage + usage
            endedBlocks = blocks.count
            messageCount += 1
            self.usage = endedUsage
        case .finished(let summary):
            self.summary = summary
            sessionID = summary.sessionID
        case .counted(let tokens): countedTokens = tokens
        case .blockEnded, .toolResult, .answered, .rateLimit, .failed: break
        }
    }

    private mutating func last(_ change: (inout AnswerBlock) -> Void) {
        if !blocks.isEmpty { change(&blocks[blocks.count - 1]) }
    }

    /// All text of the answer.
    public var text: String {
        blocks.reduce(into: "") { text, block in
            if case .text = block.kind { text += block.content }
        }
    }

    /// The text of the model's last message.
    public var lastMessageText: String {
        blocks[lastMessageStart...].reduce(into: "") { text, block in
            if case .text = block.kind { text += block.content }
        }
    }

    /// The tools that were called, in the order of their first call, and how often.
    public var toolsUsed: [(name: String, count: Int)] {
        var used: [(name: String, count: Int)] = []
        for block in blocks {
            guard case .toolUse(_, let name) = block.kind else { continue }
            if let index = used.firstIndex(where: { $0.name == name }) {
                used[index].count += 1
            } else {
                used.append((name, 1))
            }
        }
        return used
    }

    /// All that the model thought aloud.
    public var thinking: String {
        blocks.reduce(into: "") { text, block in
            if case .thinking = block.kind { text += block.content }
        }
    }

    /// The calls of the caller's tools.
    public var toolCalls: [(id: String, name: String, input: String)] {
        blocks.compactMap { block in
            guard case .toolUse(let id, let name) = block.kind else { return nil }
            return (id, name, block.content.isEmpty ? "{}" : block.content)
        }
    }
}

/// What a reply needs that is neither the request's nor the run's; passed in, so that replies can be compared byte for byte.
public struct ReplyContext: Sendable {
    /// The request's id, as nginx made it.
    public var requestID: String
    /// When the request came, in seconds since 1970.
    public var created: Int
    /// What tells one version of the CLI from another: OpenAI's `system_fingerprint`.
    public var fingerprint: String
    /// The id of the session that the request is a turn of.
    public var sessionID: String?

    /// A context.
    public init(requestID: String, created: Int, fingerprint: String = "fp_claude", sessionID: String? = nil) {
        self.requestID = requestID
        self.created = created
        self.fingerprint = fingerprint
        self.sessionID = sessionID
    }
}

/// Writes a run's events as one API's stream.
public protocol StreamEncoder: Sendable {
    /// Appends what the event becomes; nothing for one that this API does not show.
    mutating func encode(_ event: RunEvent, into out: inout [UInt8])
    /// Appends the event that ends a stream which fails after its first byte.
    mutating func encode(failure error: APIError, requestID: String, into out: inout [UInt8])
    /// The conversation could not be kept after all; said before the answer's end.
    mutating func conversationIsNotKept()
}

extension StreamEncoder {
    /// Nothing to take back, where a stream names its session in the header alone.
    public mutating func conversationIsNotKept() {}
}
