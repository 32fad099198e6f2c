/// What happens in a run, in the order a reply needs it.
///
/// There is one for each token, so what is large and rare is behind a pointer.
public enum RunEvent: Sendable, Equatable {
    /// The CLI has begun the turn: its session's id and the model it will ask.
    case started(sessionID: String, model: String)
    /// The model begins a message. A run with tools of the CLI has several.
    indirect case messageStarted(id: String, model: String, usage: TokenUsage)
    /// A part of the message begins.
    case blockStarted(AnswerBlock.Kind)
    /// A piece of the answer's text.
    case text(String)
    /// A reference of the text to a document, in the Messages API's form.
    case citation(JSONValue)
    /// A piece of what the model thought.
    case thinking(String)
    /// What proves to the API that the thinking is the model's own.
    case signature(String)
    /// A piece of the JSON that a tool is called with.
    case toolInput(String)
    /// The part is whole.
    case blockEnded
    /// What a tool of the CLI's own answered: the `tool_result` block, in the Messages API's form.
    case toolResult(JSONValue)
    /// The model's message has ended, and why.
    indirect case messageEnded(stopReason: StopReason, usage: TokenUsage)
    /// The answer is whole: nothing of it follows. What the CLI reports of the run comes as ``finished(_:)``: behind it in a
    /// chat, before it in a run of Claude Code, where it is part of the answer.
    case answered
    /// How many tokens the prompt has, when only that was asked.
    case counted(tokens: Int)
    /// How full the account's limits are.
    indirect case rateLimit(RateLimit)
    /// The turn has ended well.
    indirect case finished(RunSummary)
    /// The run failed.
    indirect case failed(APIError)

    /// Whether a client sees something of the answer in it.
    public var isContent: Bool {
        switch self {
        case .blockStarted, .text, .citation, .thinking, .signature, .toolInput, .blockEnded: true
        default: false
        }
    }
}

/// Why the model stopped, in the Messages API's words.
public enum StopReason: Sendable, Equatable {
    /// It had said all.
    case endTurn
    /// It reached the limit of tokens.
    case maxTokens
    /// It met a stop sequence: this one, where that is known.
    case stopSequence(String?)
    /// It calls tools.
    case toolUse
    /// It declined.
    case refusal
    /// Any other, as the API spells it.
    case other(String)

    /// From the API's spelling.
    ///
    /// - Parameter sequence: The API's `stop_sequence`.
    public init(_ text: String, sequence: String? = nil) {
        self =
            switch text {
            case "end_turn": .endTurn
            case "max_tokens": .maxTokens
            case "stop_sequence": .stopSequence(sequence)
            case "tool_use": .toolUse
            case "refusal": .refusal
            default: .other(text)
            }
    }

    /// The Messages API's spelling.
    public var anthropicName: String {
        switch self {
        case .endTurn: "end_turn"
        case .maxTokens: "max_tokens"
        case .stopSequence: "stop_sequence"
        case .toolUse: "tool_use"
        case .refusal: "refusal"
        case .other(let text): text
        }
    }

    /// The Messages API's `stop_sequence`.
    public var sequence: String? { if case .stopSequence(let sequence) = self { sequence } else { nil } }

    /// OpenAI's `finish_reason`.
    public var openAIName: String {
        switch self {
        case .maxTokens: "length"
        case .toolUse: "tool_calls"
        case .refusal: "content_filter"
        case .other("model_context_window_exceeded"): "length"
        default: "stop"
        }
    }
}

/// Tokens as the Messages API counts them.
///
/// The prompt's size is the sum of the three input counts.
public struct TokenUsage: Sendable, Equatable {
    /// Input that was neither read from nor written to the cache.
    public var input = 0
    /// Output.
    public var output = 0
    /// Input read from the cache.
    public var cacheRead = 0
    /// Input written to the cache.
    public var cacheCreation = 0
    /// The part of ``cacheCreation`` that is kept for an hour.
    public var cacheCreationHour = 0
    /// The part of ``output`` that was thinking.
    public var thinking = 0

    /// Counts.
    public init(
        input: Int = 0, output: Int = 0, cacheRead: Int = 0, cacheCreation: Int = 0, cacheCreationHour: Int = 0,
        thinking: Int = 0
    ) {
        self.input = input
        self.output = output
        self.cacheRead = cacheRead
        self.cacheCreation = cacheCreation
        self.cacheCreationHour = cacheCreationHour
        self.thinking = thinking
    }

    /// From a `usage` object of the API or of the CLI's `result`; what it leaves out stays as in `previous`.
    public init(_ json: JSONValue?, previous: TokenUsage = TokenUsage()) {
        self.init(
            input: json?["input_tokens"]?.intValue ?? previous.input,
            output: json?["output_tokens"]?.intValue ?? previous.output,
            cacheRead: json?["cache_read_input_tokens"]?.intValue ?? previous.cacheRead,
            cacheCreation: json?["cache_creation_input_tokens"]?.intValue ?? previous.cacheCreation,
            cacheCreationHour: json?["cache_creation"]?["ephemeral_1h_input_tokens"]?.intValue
                ?? previous.cacheCreationHour,
            thinking: json?["output_tokens_details"]?["thinking_tokens"]?.intValue ?? previous.thinking)
    }

    /// Both together.
    public static func + (left: TokenUsage, right: TokenUsage) -> TokenUsage {
        TokenUsage(
            input: add(left.input, right.input), output: add(left.output, right.output),
            cacheRead: add(left.cacheRead, right.cacheRead),
            cacheCreation: add(left.cacheCreation, right.cacheCreation),
            cacheCreationHour: add(left.cacheCreationHour, right.cacheCreationHour),
            thinking: add(left.thinking, right.thinking))
    }

    /// All tokens of the prompt.
    ///
    /// Saturating: the numbers come from outside.
    public var prompt: Int { Self.add(Self.add(input, cacheRead), cacheCreation) }

    /// Prompt and output.
    public var total: Int { Self.add(prompt, output) }

    private static func add(_ left: Int, _ right: Int) -> Int {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? Int.max : sum
    }
}

/// What the CLI reports at the end of a turn.
public struct RunSummary: Sendable, Equatable {
    /// The text of the last message.
    public var result: String
    /// Tokens of the whole turn, over all its messages.
    public var usage: TokenUsage
    /// The CLI's own figure for the turn's price, in US dollars.
    public var costUSD: Double?
    /// How many messages the model wrote.
    public var turnCount: Int
    /// The CLI session's id.
    public var sessionID: String
    /// How the turn ended, in the CLI's words: `success`, `error_max_turns`, `error_max_budget_usd`.
    public var ending = "success"
    /// The id of the conversation's last message, as the CLI's transcript has it; where it can be resumed.
    public var lastMessageID: String?
    /// Calls of tools that were not permitted, as the CLI reports them.
    public var denials: [JSONValue] = []
    /// The answer that fits the request's JSON Schema.
    public var structuredOutput: JSONValue?

    /// A summary.
    public init(result: String, usage: TokenUsage, costUSD: Double?, turnCount: Int, sessionID: String) {
        self.result = result
        self.usage = usage
        self.costUSD = costUSD
        self.turnCount = turnCount
        self.sessionID = sessionID
    }
}
