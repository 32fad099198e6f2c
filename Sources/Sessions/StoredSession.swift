/// One session: a conversation that is kept for its key.
public struct StoredSession: Sendable, Equatable {
    /// The kind of API that began a session and continues it.
    public enum Profile: String, Sendable, CaseIterable {
        /// The direct API; the CLI's transcript is the conversation.
        case agent
        /// The chat APIs; the row has the conversation.
        case chat
    }

    /// The public id, a UUID.
    public var id: String
    /// The key's name; for every other key the row does not exist.
    public var owner: String
    /// The CLI's own id of the conversation, a UUID; empty for a chat.
    public var cliSessionID: String
    /// The first words of the first prompt; nil when titles are off.
    public var title: String?
    /// Where the CLI runs; empty for a chat.
    public var workingDirectory: String
    /// The directory was made for the session and is removed with it.
    public var ownsDirectory: Bool
    /// The model of the last turn.
    public var model: String
    /// The kind of API.
    public var profile: Profile
    /// What holds until a request says otherwise, such as the system prompt, as JSON that nothing here reads.
    public var settings: String
    /// The conversation of a chat, as JSON that nothing here reads.
    public var conversation: String?
    /// The length of the CLI's transcript after the last turn that was whole.
    public var transcriptBytes: Int
    /// Turns that were whole; 0 while the first one is not: such a session is begun, listed nowhere and not continued.
    public var turns: Int
    /// Tokens of input over all turns, those of the cache not counted.
    public var inputTokens: Int
    /// Tokens of output over all turns.
    public var outputTokens: Int
    /// Tokens of input that came from the cache, over all turns.
    public var cacheReadTokens: Int
    /// Tokens of input that went into the cache, over all turns.
    public var cacheCreationTokens: Int
    /// Dollars over all turns.
    public var costUSD: Double
    /// Seconds since 1970.
    public var created: Int
    /// Seconds since 1970; what expiry counts from.
    public var lastUsed: Int

    /// A session as it is to be stored.
    public init(
        id: String, owner: String, cliSessionID: String = "", title: String? = nil, workingDirectory: String = "",
        ownsDirectory: Bool = false, model: String, profile: Profile, settings: String, conversation: String? = nil,
        transcriptBytes: Int = 0, turns: Int = 0, inputTokens: Int = 0, outputTokens: Int = 0,
        cacheReadTokens: Int = 0, cacheCreationTokens: Int = 0, costUSD: Double = 0, created: Int, lastUsed: Int
    ) {
        self.id = id
        self.owner = owner
        self.cliSessionID = cliSessionID
        self.title = title
        self.workingDirectory = workingDirectory
        self.ownsDirectory = ownsDirectory
        self.model = model
        self.profile = profile
        self.settings = settings
        self.conversation = conversation
        self.transcriptBytes = transcriptBytes
        self.turns = turns
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
        self.cacheReadTokens = cacheReadTokens
        self.cacheCreationTokens = cacheCreationTokens
        self.costUSD = costUSD
        self.created = created
        self.lastUsed = lastUsed
    }
}

/// What one whole turn changes in its session.
public struct SessionTurn: Sendable, Equatable {
    /// The CLI's id of the conversation from now on.
    public var cliSessionID: String
    /// The model that answered.
    public var model: String
    /// Where the CLI ran.
    public var workingDirectory: String
    /// What holds from now on, as JSON.
    public var settings: String
    /// Nil leaves it as it is.
    public var title: String?
    /// Nil leaves it as it is.
    public var conversation: String?
    /// The length of the CLI's transcript from now on.
    public var transcriptBytes: Int
    /// Added to the session's.
    public var inputTokens: Int
    /// Added to the session's.
    public var outputTokens: Int
    /// Added to the session's.
    public var cacheReadTokens: Int
    /// Added to the session's.
    public var cacheCreationTokens: Int
    /// Added to the session's.
    public var costUSD: Double

    /// A turn that was whole.
    public init(
        cliSessionID: String = "", model: String, workingDirectory: String = "", settings: String,
        title: String? = nil, conversation: String? = nil, transcriptBytes: Int = 0, inputTokens: Int = 0,
        outputTokens: Int = 0, cacheReadTokens: Int = 0, cacheCreationTokens: Int = 0, costUSD: Double = 0
    ) {
        self.cliSessionID = cliSessionID
        self.model = model
        self.workingDirectory = workingDirectory
        self.settings = settings
        self.title = title
        self.conversation = conversation
        self.transcriptBytes = transcriptBytes
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
        self.cacheReadTokens = cacheReadTokens
        self.cacheCreationTokens = cacheCreationTokens
        self.costUSD = costUSD
    }
}
