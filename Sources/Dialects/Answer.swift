/// A run's answer, collected for a reply that is not streamed.
public struct Answer: Sendable, Equatable {
    /// The model message's id.
    public private(set) var id = ""
    /// The model that answered.
    public private(set) var model = ""
    /// The text of the last message.
    public private(set) var text = ""
    /// Why the last message ended.
    public private(set) var stopReason = StopReason.endTurn
    /// Tokens of the last message; of the whole run once it is finished and had tools.
    public private(set) var usage = TokenUsage()
    /// The CLI session's id.
    public private(set) var sessionID = ""
    /// The CLI's own report, when the run is finished.
    public private(set) var summary: RunSummary?

    /// An empty answer.
    public init() {}

    /// Takes in what happened.
    public mutating func append(_ event: RunEvent) {
        switch event {
        case .started(let sessionID, let model):
            self.sessionID = sessionID
            self.model = model
        case .messageStarted(let id, let model, let usage):
            self.id = id
            text = ""
            if !model.isEmpty { self.model = model }
            self.usage = usage
        case .text(let piece): text += piece
        case .messageEnded(let stopReason, let usage):
            self.stopReason = stopReason
            self.usage = usage
        case .finished(let summary):
            self.summary = summary
            sessionID = summary.sessionID
        case .answered, .failed: break
        }
    }
}

/// What a reply needs that is neither the request's nor the run's; passed in, so that replies can be compared byte for byte.
public struct ReplyContext: Sendable {
    /// The request's id, as nginx made it.
    public var requestID: String
    /// When the request came, in seconds since 1970.
    public var created: Int

    /// A context.
    public init(requestID: String, created: Int) {
        self.requestID = requestID
        self.created = created
    }
}

/// Writes a run's events as one API's stream.
public protocol StreamEncoder: Sendable {
    /// Appends what the event becomes; nothing for one that this API does not show.
    mutating func encode(_ event: RunEvent, into out: inout [UInt8])
}
