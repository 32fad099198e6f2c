// Makes a process ready before there is a request, as a state machine without I/O.
//
//   initialize ──> offline ──> turn ──> rewind ──> restore ──> ready          each step when the one before is answered
//
// The first turn of a process takes the CLI several times as long as any later one. So a spare has one behind it that failed:
// its upstream is a closed port of this machine, nothing leaves it. Then the turn is taken back, and the CLI is as it was
// (seen with CLI 2.1.251 and 2.1.332: the request behind it is the same as a fresh process's, byte for byte).

/// The warming of one spare CLI process.
public struct ClaudeWarmup: Sendable {
    private enum Step: String {
        case initialize, offline, turn, rewind, restore, ready, failed
    }

    /// A port that nothing listens at: TCP's own multiplexer, which no one serves.
    static let nowhere = "http://127.0.0.1:1"
    /// The turn's id, by which it is taken back.
    static let turnID = "00000000-0000-4000-8000-000000000001"

    private let baseURL: String?
    private let retries: String?
    private var step = Step.initialize
    /// Why the process can't be used; for the log.
    public private(set) var failure: String?

    /// A warming that begins with ``start()``.
    ///
    /// - Parameters:
    ///   - baseURL: The ANTHROPIC_BASE_URL that the process was started with; nil for none.
    ///   - retries: Its CLAUDE_CODE_MAX_RETRIES.
    public init(baseURL: String?, retries: String?) {
        self.baseURL = baseURL
        self.retries = retries
    }

    /// Whether all that a CLI with this environment asks goes to ANTHROPIC_BASE_URL, and directly: a proxy would be handed
    /// the failing turn, with the account's key (seen with CLI 2.1.251 and 2.1.332: HTTPS_PROXY as well).
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

    /// Whether the process is ready for a ``ClaudeConversation`` that enters it warm.
    public var isReady: Bool { step == .ready }

    /// The first lines.
    public mutating func start() -> [ClaudeConversation.Action] {
        [
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
            // An answer would have come from an upstream, and cost something.
            guard line["is_error"]?.boolValue == true else { return fail("its turn did not fail") }
            step = .rewind
            return [
                ask(
                    JSONObject([
                        ("subtype", "rewind_conversation"), ("target_message_uuid", .string(Self.turnID)),
                    ]))
            ]
        case "control_request":
            return [
                .write(
                    ClaudeLine.reply(
                        to: line["request_id"],
                        JSONObject([("subtype", "error"), ("error", "not supported by this host")])))
            ]
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
            step = .offline
            return [askSettings(baseURL: Self.nowhere, retries: "0")]
        case .offline:
            step = .turn
            return [.write(ClaudeLine.user([RunRequest.Turn.text("Hi")], uuid: Self.turnID))]
        case .rewind:
            guard response?["response"]?["rewound"]?.boolValue == true else {
                return fail("its turn could not be taken back")
            }
            step = .restore
            return [askSettings(baseURL: baseURL, retries: retries)]
        case .restore:
            step = .ready
            return []
        case .turn, .ready, .failed: return []
        }
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
