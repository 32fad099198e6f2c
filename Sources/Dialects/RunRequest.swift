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

    /// How the model thinks before it answers.
    public enum Thinking: Sendable, Equatable {
        /// As the CLI sees fit.
        case automatic
        /// Not at all: what both vendors' APIs do unless asked.
        case off
        /// As the Messages API's own `thinking` object says.
        case native(JSONValue)
        /// As the CLI sees fit, with a summary for the caller to read.
        case summarized
    }

    /// A function of the caller's that the model may call.
    public struct Tool: Sendable, Equatable {
        /// Its name.
        public var name: String
        /// Everything of it, in the Messages API's form (`name`, `description`, `input_schema`, …).
        public var definition: JSONObject

        /// A tool.
        public init(name: String, definition: JSONObject) {
            self.name = name
            self.definition = definition
        }
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
    /// What the CLI process is.
    public var profile: Profile
    /// Parameters that were accepted and change nothing.
    public var ignoredParameters: [String]
    /// The caller's own tools.
    public var tools: [Tool] = []
    /// Which tools the model must or may call, in the Messages API's form; nil for its own choice.
    public var toolChoice: JSONObject?
    /// The JSON Schema that the answer must fit.
    public var outputSchema: JSONValue?
    /// Where the request has that schema, for an error message.
    public var outputSchemaParameter: String?
    /// Where the answer is cut, the words themselves left out.
    public var stopSequences: [String] = []
    /// Sampling parameters in the Messages API's form.
    public var sampling = JSONObject()
    /// How the model thinks.
    public var thinking = Thinking.automatic
    /// How much effort the model makes: `low`, `medium`, `high`, `xhigh` or `max`; nil for the CLI's default.
    public var effort: String?
    /// How many answers are wanted, each from a run of its own.
    public var choiceCount = 1
    /// What the reply has, and the model need not know.
    public var reply = ReplyOptions()
    /// Whether the prompt is only to be counted, and no answer is wanted.
    public var countsTokens = false
    /// The stored conversation that the run continues or begins.
    public var session = SessionWish.none
    /// How long the run may take at most; nil for the service's limit.
    public var timeout: Duration?
    /// Whether the caller is answered at once and fetches the result later.
    public var isBackground = false
    /// Tools of the CLI's own that a chat has by the operator's choice; their calls are not shown.
    public var hostTools: [ToolRule] = []
    /// Whether a chat has Claude Code's own system prompt, with the caller's added to it.
    public var usesClaudeCodePrompt = false

    /// A request.
    public init(
        model: String? = nil, system: [String] = [], turns: [Turn], maxOutputTokens: Int? = nil,
        isStreaming: Bool = false, profile: Profile = .chat, ignoredParameters: [String] = []
    ) {
        self.model = model
        self.system = system
        self.turns = turns
        self.maxOutputTokens = maxOutputTokens
        self.isStreaming = isStreaming
        self.profile = profile
        self.ignoredParameters = ignoredParameters
    }
}

/// What a reply has beyond the answer.
public struct ReplyOptions: Sendable, Equatable {
    /// Whether a stream of OpenAI's ends with a chunk that has the usage.
    public var includesUsage = false
    /// Whether OpenAI's chat shows what the model thought.
    public var showsThinking = false
    /// Whether tools are called in the form that OpenAI had before `tool_calls`.
    public var usesLegacyFunctions = false
    /// Whether a text completion begins with its prompt.
    public var echoesPrompt = false

    /// The plain reply.
    public init() {}
}

/// Which stored conversation a request wants.
public enum SessionWish: Sendable, Equatable {
    /// None: nothing of the run is kept.
    case none
    /// A new one.
    case new
    /// One that exists, by its public id.
    ///
    /// - Parameter forks: Go on in a copy, and leave the conversation itself as it is.
    case existing(id: String, forks: Bool)
}

/// Claude Code's tools and place for one run of the direct API.
public struct AgentProfile: Sendable, Equatable {
    /// Tools the model has, by name.
    public var tools: [String]
    /// Permission rules that are granted: a tool's name or `Name(specifier)`.
    public var allowRules: [String]
    /// Permission rules that are refused, whatever is granted.
    public var denyRules: [String] = []
    /// The directory as the caller named it; nil for the session's own, or a fresh one.
    public var workingDirectory: String?
    /// Further directories that the file tools may work in: as the caller named them, and once they have been looked at
    /// where they are (``RunRequest/resolvingDirectories(_:)``).
    public var addedDirectories: [String] = []
    /// The CLI's permission mode; nil for `default`.
    public var permissionMode: String?
    /// How many messages the model may write; nil for no limit.
    public var maxTurns: Int?
    /// What the run may cost, in US dollars; nil for no limit.
    public var maxBudgetUSD: Double?
    /// What is added to Claude Code's own system prompt.
    public var appendedSystemPrompt: String?
    /// MCP servers by name, in the form of the CLI's `mcpServers`.
    public var mcpServers = JSONObject()

    /// A profile.
    public init(tools: [String], allowRules: [String], workingDirectory: String?) {
        self.tools = tools
        self.allowRules = allowRules
        self.workingDirectory = workingDirectory
    }
}
