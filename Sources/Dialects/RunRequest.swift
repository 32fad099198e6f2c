/// What every dialect's request becomes, and what the CLI is told.
public struct RunRequest: Sendable, Equatable {
    /// Who speaks.
    public enum Role: String, Sendable {
        /// The caller's side.
        case user
        /// The model's side.
        case assistant
    }

    /// One message of the conversation; two neighbours never have the same role.
    public struct Turn: Sendable, Equatable {
        /// Who speaks.
        public var role: Role
        /// Its content blocks, in the Messages API's form.
        public var blocks: [JSONValue]

        /// A turn.
        public init(role: Role, blocks: [JSONValue]) {
            self.role = role
            self.blocks = blocks
        }

        /// A text block.
        public static func text(_ text: String) -> JSONValue { ["type": "text", "text": .string(text)] }
    }

    /// What a CLI process is started as; a running one can't change it.
    public enum Profile: Sendable, Equatable {
        /// The model and the caller's words: no tools, no settings, no Claude Code prompt.
        case chat
        /// Claude Code in a directory, with tools.
        case agent(AgentProfile)
    }

    /// The model as the caller named it; nil for the default.
    public var model: String?
    /// The caller's system prompts in order.
    public var system: [String]
    /// The conversation, the caller's newest turn last.
    public var turns: [Turn]
    /// The most tokens of an answer; nil for the CLI's own limit.
    public var maxOutputTokens: Int?
    /// Whether the answer is streamed.
    public var isStreaming: Bool
    /// Whether a stream of OpenAI's ends with a chunk that has the usage.
    public var includesUsage: Bool
    /// What the CLI process is.
    public var profile: Profile
    /// Parameters that were accepted and change nothing.
    public var ignoredParameters: [String]

    /// A request.
    public init(
        model: String? = nil, system: [String] = [], turns: [Turn], maxOutputTokens: Int? = nil,
        isStreaming: Bool = false,
        includesUsage: Bool = false, profile: Profile = .chat, ignoredParameters: [String] = []
    ) {
        self.model = model
        self.system = system
        self.turns = turns
        self.maxOutputTokens = maxOutputTokens
        self.isStreaming = isStreaming
        self.includesUsage = includesUsage
        self.profile = profile
        self.ignoredParameters = ignoredParameters
    }

    /// Appends content, to the last turn if that has the same role: the API reads neighbours of one role as one turn, and
    /// the CLI would join them with line ends of its own.
    mutating func append(_ role: Role, _ blocks: [JSONValue]) {
        if let last = turns.indices.last, turns[last].role == role {
            turns[last].blocks += blocks
        } else {
            turns.append(Turn(role: role, blocks: blocks))
        }
    }
}

/// Claude Code's tools and place for one run of the direct API.
public struct AgentProfile: Sendable, Equatable {
    /// Tools the model has, by name.
    public var tools: [String]
    /// Permission rules that are granted: a tool's name or `Name(specifier)`.
    public var allowRules: [String]
    /// The directory as the caller named it; nil for a fresh one.
    public var workingDirectory: String?

    /// A profile.
    public init(tools: [String], allowRules: [String], workingDirectory: String?) {
        self.tools = tools
        self.allowRules = allowRules
        self.workingDirectory = workingDirectory
    }
}
