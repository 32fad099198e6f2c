// Makes a process ready before there is a request, as a state machine without I/O.
//
//   initialize ──> upstream ──> tools ──> turn ──> rewind ──> clear ──> restore ──> ready      each when the one before is answered
//
// What a process does for the first time takes the CLI several times as long as any later time. So a spare has a turn behind it,
// with a call of a tool and its result, as callers make them. Its upstream is the responder itself (``WarmupUpstream``): nothing
// leaves the machine, nothing costs anything. Then the turn is taken back, and the CLI is as it was (seen with CLI 2.1.251 and
// 2.1.332: the request behind it is the same as a fresh process's, byte for byte).

/// The warming of one spare CLI process.
public struct ClaudeWarmup: Sendable {
    private enum Step: String {
        case initialize, upstream, tools, turn, rewind, clear, restore, ready, failed
    }

    /// The turn's id, by which it is taken back.
    static let turnID = "00000000-0000-4000-8000-000000000001"

    private let upstream: String?
    private let baseURL: String?
    private let retries: String?
    private var step = Step.initialize
    private var tools = ToolServer([WarmupUpstream.tool])
    private var areToolsTaken = false
    /// Why the process can't be used; for the log.
    public private(set) var failure: String?

    /// A warming that begins with ``start()``.
    ///
    /// - Parameters:
    ///   - upstream: The base URL at which a ``WarmupUpstream`` answers; nil for a process that is only to be up and is told nothing.
    ///   - baseURL: The ANTHROPIC_BASE_URL that the process was started with; nil for none.
    ///   - retries: Its CLAUDE_CODE_MAX_RETRIES.
    public init(upstream: String?, baseURL: String?, retries: String?) {
        self.upstream = upstream
        self.baseURL = baseURL
        self.retries = retries
    }

    /// Whether all that a CLI with this environment asks goes to ANTHROPIC_BASE_URL, and directly: a proxy would be handed
    /// the turn, with the account's key (seen with CLI 2.1.251 and 2.1.332: HTTPS_PROXY as well).
    public static func isPossible(environment: [String: String]) -> Bool {
        !environment.contains { name, value in
            guard !value.isEmpty, value != "0", value.lowercased() != "false" else { return false }
            return elsewhere.contains(name) || name.lowercased().hasSuffix("_proxy") && name.lowercased() != "no_proxy"
        }
    }

    private static let elsewhere: Set<String> = [
        "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY", "CLAUDE_CODE_USE_MANTLE",
        "CLAUDE_CODE_USE_ANTHROPIC_AWS", "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD", "CLAUDE_CODE_USE_GATEWAY",
        "ANTHROPIC_UNIX_SOCKET",
    ]

    /// Whether the process is ready for a ``ClaudeConversation``, which enters it warm if there was an upstream.
    public var isReady: Bool { step == .ready }

    /// The first lines.
    public mutating func start() -> [ClaudeConversation.Action] {
        if upstream == nil {
            step = .restore
            return [ask(JSONObject([("subtype", "apply_flag_settings"), ("settings", [:])]))]
        }
        return [
            ask(
                JSONObject([
                    ("subtype", "initialize"), ("hooks", nil), ("systemPrompt", [""]), ("systemPromptSnapshot", false),
                ]))
        ]
    }

    /// Takes one line of the CLI's output, without its newline.
    public mutating func receive(_ bytes: [UInt8], in range: Range<Int>) -> [ClaudeConversation.Action] {
        guard step != .ready, step != .failed, !range.isEmpty else { return [] }
        guard let line = try? JSONParser.parse(bytes, in: range) else { return fail("it wrote what is no JSON") }
        switch line["type"]?.stringValue {
        case "control_response": return answered(line["response"])
        case "result":
            guard step == .turn else { return [] }
            guard line["is_error"]?.boolValue == false, tools.hasAnswered(WarmupUpstream.callID) else {
                let words = (line["result"]?.stringValue ?? "").prefix(ClaudeConversation.quotedCharacters)
                return fail("its turn failed: \(words)")
            }
            step = .rewind
            return [
                ask(
                    JSONObject([
                        ("subtype", "rewind_conversation"), ("target_message_uuid", .string(Self.turnID)),
                    ]))
            ]
        case "control_request":
            guard line["request"]?["subtype"] == "mcp_message" else {
                return [
                    .write(
                        ClaudeLine.reply(
                            to: line["request_id"],
                            JSONObject([("subtype", "error"), ("error", "not supported by this host")])))
                ]
            }
            let answer = tools.answer(line).map { [ClaudeConversation.Action.write($0)] } ?? []
            return answer + askIfReady()
        default: return []
        }
    }

    /// The CLI's output ended, or the process did.
    ///
    /// - Parameter cause: How; for the log.
    public mutating func outputEnded(cause: String) -> [ClaudeConversation.Action] {
        step == .failed ? [] : fail(cause)
    }

    private mutating func answered(_ response: JSONValue?) -> [ClaudeConversation.Action] {
        guard response?["request_id"]?.stringValue == id else { return [] }
        guard response?["subtype"] == "success" else {
            let words = (response?["error"]?.stringValue ?? "").prefix(ClaudeConversation.quotedCharacters)
            return fail("\(step.rawValue) refused: \(words)")
        }
        switch step {
        case .initialize:
            if let error = ClaudeConversation.versionError(response?["response"]) { return fail(error.message) }
            step = .upstream
            return [askSettings(baseURL: upstream, retries: "0")]
        case .upstream:
            step = .tools
            return [ask(ClaudeConversation.servers([ToolNames.server: ToolNames.ownServer]))]
        case .tools:
            areToolsTaken = true
            return askIfReady()
        case .rewind:
            guard response?["response"]?["rewound"]?.boolValue == true else {
                return fail("its turn could not be taken back")
            }
            step = .clear
            return [ask(ClaudeConversation.servers([:]))]
        case .clear:
            step = .restore
            return [askSettings(baseURL: baseURL, retries: retries)]
        case .restore:
            step = .ready
            return []
        case .turn, .ready, .failed: return []
        }
    }

    /// Asks the model, once the CLI has the tool.
    private mutating func askIfReady() -> [ClaudeConversation.Action] {
        guard step == .tools, areToolsTaken, tools.isListed else { return [] }
        step = .turn
        // The result is there before the call.
        _ = tools.give([(WarmupUpstream.callID, ["content": [RunRequest.Turn.text("It is.")]])])
        return [.write(ClaudeLine.user([RunRequest.Turn.text("Hi")], uuid: Self.turnID))]
    }

    /// Told apart from the ids of a conversation's lines, which may follow at once.
    private var id: String { "warmup-\(step.rawValue)" }

    private func ask(_ request: JSONObject) -> ClaudeConversation.Action { .write(ClaudeLine.control(id, request)) }

    /// Null takes a variable away; what the process was started with must be named to be set back.
    private func askSettings(baseURL: String?, retries: String?) -> ClaudeConversation.Action {
        ask(
            JSONObject([
                ("subtype", "apply_flag_settings"),
                (
                    "settings",
                    [
                        "env": [
                            "ANTHROPIC_BASE_URL": baseURL.map { .string($0) } ?? nil,
                            "CLAUDE_CODE_MAX_RETRIES": retries.map { .string($0) } ?? nil,
                        ]
                    ]
                ),
            ]))
    }

    private mutating func fail(_ reason: String) -> [ClaudeConversation.Action] {
        step = .failed
        failure = reason
        return [.end]
    }
}
