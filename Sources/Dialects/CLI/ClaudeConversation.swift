// One conversation with one CLI process, as a state machine without I/O.
//
//   opening ── initialize answered ──> configuring ── settings answered ──> feeding ── last line written ──> running ──> ended
//              (a warm process begins here)                                    parked ── resumed ──────────────^  <── parked
//
// Feeding: the CLI queues user lines but takes assistant lines at once, so a history user line must be acknowledged (a
// `result` with `num_turns: 0`) before the assistant line behind it is written; otherwise the order is lost
// (seen with CLI 2.1.330). User lines carry `client_composed`, or `@path` and `/command` in them would act.
//
// `+Opening` has what comes before the model is asked, `+Turn` what the model says, `+Live` how a turn follows another.
//
// Source of the lines' forms: Tests/Transcripts, recorded from the real CLI.

/// Drives one CLI process through one request, and in a process that is kept through those that continue it.
public struct ClaudeConversation: Sendable {
    /// What the owner of the process does next, in order.
    public enum Action: Sendable, Equatable {
        /// Write these bytes, whole lines, to the CLI's standard input.
        case write([UInt8])
        /// Hand this on to the reply.
        case event(RunEvent)
        /// End the process: nothing that it may still say is wanted. One whose conversation ``isContinuable`` may be kept.
        case end
    }

    /// What the process is when the request comes to it.
    public enum Entry: Sendable, Equatable {
        /// Nothing has been written to it.
        case cold
        /// ``ClaudeWarmup`` has made it ready.
        ///
        /// - Parameter defaultModel: The ANTHROPIC_MODEL that it was started with: where the system prompt is changed, a model
        ///   that is not named is the vendor's default.
        case warm(defaultModel: String?)
    }

    /// The MCP server by which the caller's tools are offered; the CLI must be started with its tools allowed.
    public static let toolServer = ToolNames.server

    /// Where the conversation stands.
    enum State: Equatable {
        case opening, configuring, feeding(next: Int), counting, running, parked, ended
    }

    /// What must be answered before the conversation is fed; its name is the line's id.
    enum Step: String { case model, settings, thinking, servers }

    /// What is known of the turn that is answered.
    struct TurnProgress {
        /// Whether it follows another in the process: then the caller has been told the session and the model.
        var isResumed = false
        /// Whether the answer is whole.
        var isAnswered = false
        /// The id of the last message in the CLI's transcript.
        var lastMessageID: String?
        /// Whether the CLI asked the model again after results of tools that it had waited for.
        var goesOn = false
        /// The answer as the caller gets it; collected where another turn may follow in the process.
        var answer = Answer()
        /// The same in the CLI's own record.
        var recorded: [JSONValue] = []
        /// Whether the CLI did something that the caller doesn't know of.
        var isOdd = false
    }

    private(set) var request: RunRequest
    /// The model in the CLI's own words.
    let model: String?
    let settings: JSONValue?
    /// The full id of the model, for the history's messages.
    let resolvedModel: String?
    let entry: Entry
    var state = State.opening
    var awaited: Set<Step> = []
    var tools: ToolServer
    var reader: MessageReader
    var turn = TurnProgress()
    /// The CLI session's id.
    var sessionID = ""
    /// Whether the process must be ended at once, because it would go on asking the model.
    public internal(set) var isCut = false
    /// Whether the answer ended in such a way that the process may be parked for the turn that continues it.
    public internal(set) var isContinuable = false
    /// How often the CLI has asked its upstream again by itself in this turn.
    public private(set) var retryCount = 0
    /// What the CLI has reported as its price, over all turns, in US dollars.
    var reportedUSD = 0.0

    /// A conversation that begins with ``start()``.
    ///
    /// - Parameters:
    ///   - request: Its last turn is the caller's; earlier ones are history.
    ///   - model: The model in the CLI's own words; nil leaves the CLI's default.
    ///   - resolvedModel: The full id of that model, or of the default; nil if it is unknown.
    ///   - entry: What the process is; a warm one takes only a request that ``RunRequest/fitsWarmProcess``.
    public init(_ request: RunRequest, model: String?, resolvedModel: String? = nil, entry: Entry = .cold) {
        precondition(entry == .cold || request.fitsWarmProcess, "a warm process can't take this request")
        self.request = request
        self.model = model
        self.resolvedModel = resolvedModel ?? model
        self.entry = entry
        tools = ToolServer(request.offeredTools)
        reader = MessageReader(request)
        settings = LaunchSettings.settings(for: request, model: model)
    }

    /// Takes one line of the CLI's output, without its newline.
    public mutating func receive(_ bytes: [UInt8], in range: Range<Int>) -> [Action] {
        guard state != .parked else { return receiveParked(bytes, in: range) }
        guard state != .ended, !range.isEmpty else { return [] }
        if state == .running, !turn.isAnswered, let delta = DeltaLine(bytes, in: range) { return self.delta(delta) }
        let line: JSONValue
        do throws(JSONError) {
            line = try JSONParser.parse(bytes, in: range)
        } catch {
            return fail(
                APIError(
                    .cli,
                    "The Claude Code CLI wrote something that is not its protocol. Run `claude-fcgi check` "
                        + "on the server.",
                    cause: "line of \(range.count) bytes: \(error.reason) at byte \(error.offset)"))
        }
        switch line["type"]?.stringValue {
        case "stream_event": return streamEvent(line)
        case "result": return result(line)
        case "assistant", "user": return message(line)
        case "control_response": return controlResponse(line)
        case "control_request": return controlRequest(line)
        case "system" where line["subtype"]?.stringValue == "init" && state == .running: return begun(line)
        case "tool_progress" where turn.goesOn: return heartbeat()
        case "rate_limit_event": return RateLimit(line["rate_limit_info"]).map { [.event(.rateLimit($0))] } ?? []
        case "system" where line["subtype"]?.stringValue == "api_retry":
            retryCount += 1
            return []
        default: return []
        }
    }

    /// The CLI's output ended, or the process did.
    ///
    /// - Parameter cause: How, with what it said on standard error; for the log.
    public mutating func outputEnded(cause: String) -> [Action] {
        guard state != .ended else { return [] }
        isContinuable = false
        if turn.isAnswered || state == .parked {
            state = .ended
            return [.end]
        }
        return fail(
            APIError(
                .cli, "The Claude Code CLI ended before it answered. Run `claude-fcgi check` on the server.",
                cause: cause,
                isTransient: true))
    }

    /// The CLI wrote a line that outgrew the read buffer.
    public mutating func lineTooLong(limitBytes: Int) -> [Action] {
        guard state != .parked else { return outputEnded(cause: "") }
        return fail(
            APIError(
                .cli, "The Claude Code CLI wrote a line of more than \(limitBytes >> 20) MiB. Ask for less at once.",
                cause: "a line of more than \(limitBytes) bytes"))
    }

    /// Whether nothing more is expected of the process for the turn.
    public var isEnded: Bool { state == .ended }

    /// Begins a turn of another request's; its parameters are the first one's.
    mutating func beginTurn(of request: RunRequest) {
        self.request = request
        reader = MessageReader(request)
        turn = TurnProgress()
        retryCount = 0
        isCut = false
        isContinuable = false
        state = .running
    }

    /// Ends the conversation without an answer.
    mutating func fail(_ error: APIError) -> [Action] {
        state = .ended
        // The caller has the answer: what goes wrong behind it is nothing of his.
        if turn.isAnswered { return [.end] }
        return [.event(.failed(error)), .end]
    }
}
