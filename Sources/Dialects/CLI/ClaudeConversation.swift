// One conversation with one CLI process, as a state machine without I/O.
//
//   opening ── initialize answered ──> configuring ── settings answered ──> feeding ── last line written ──> running ──> ended
//
// Feeding: the CLI queues user lines but takes assistant lines at once, so a history user line must be acknowledged (a
// `result` with `num_turns: 0`) before the assistant line behind it is written; otherwise the order is lost
// (seen with CLI 2.1.330). User lines carry `client_composed`, or `@path` and `/command` in them would act.
//
// Source of the lines' forms: Tests/Transcripts, recorded from the real CLI.

/// Drives one CLI process through one request.
public struct ClaudeConversation: Sendable {
    /// What the owner of the process does next, in order.
    public enum Action: Sendable, Equatable {
        /// Write these bytes, whole lines, to the CLI's standard input.
        case write([UInt8])
        /// Hand this on to the reply.
        case event(RunEvent)
        /// End the process: nothing that it may still say is wanted.
        case end
    }

    private enum State: Equatable {
        case opening, configuring, feeding(next: Int), running, ended
    }

    /// Characters of the CLI's own words that go into an error message.
    private static let quotedCharacters = 400

    private let request: RunRequest
    private let settings: JSONValue?
    private var state = State.opening
    private var usage = TokenUsage()
    private var stopReason: StopReason?
    private var messageID = ""
    private var model = ""
    private var hasText = false
    private var text = ""
    private var isAnswered = false
    /// How often the CLI has asked its upstream again by itself.
    public private(set) var retryCount = 0

    /// A conversation that begins with ``start()``.
    ///
    /// - Parameters:
    ///   - request: Its last turn is the caller's; earlier ones are history.
    ///   - model: The model in the CLI's own words; nil leaves the CLI's default.
    public init(_ request: RunRequest, model: String?) {
        self.request = request
        var settings = JSONObject()
        if let model { settings["model"] = .string(model) }
        if let limit = request.maxOutputTokens {
            settings["env"] = ["CLAUDE_CODE_MAX_OUTPUT_TOKENS": .string(String(limit))]
        }
        if case .agent(let agent) = request.profile, !agent.allowRules.isEmpty {
            settings["permissions"] = ["allow": .array(agent.allowRules.map { .string($0) })]
        }
        self.settings = settings.members.isEmpty ? nil : .object(settings)
    }

    /// The first lines.
    public mutating func start() -> [Action] {
        var initialize: JSONObject = JSONObject([
            .init(key: "subtype", value: "initialize"), .init(key: "hooks", value: nil),
        ])
        switch request.profile {
        case .chat:
            // An empty prompt keeps Claude Code's own 50 KB out.
            initialize["systemPrompt"] = .array(request.system.isEmpty ? [""] : request.system.map { .string($0) })
        case .agent:
            if !request.system.isEmpty {
                initialize["systemPrompt"] = .array(request.system.map { .string($0) })
            }
        }
        return [
            .write(Self.line(["type": "control_request", "request_id": "initialize", "request": .object(initialize)]))
        ]
    }

    /// Takes one line of the CLI's output, without its newline.
    public mutating func receive(_ bytes: [UInt8], in range: Range<Int>) -> [Action] {
        guard state != .ended, !range.isEmpty else { return [] }
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
        case "control_response": return controlResponse(line)
        case "control_request": return controlRequest(line)
        case "system" where line["subtype"]?.stringValue == "init" && state == .running:
            model = line["model"]?.stringValue ?? ""
            return [.event(.started(sessionID: line["session_id"]?.stringValue ?? "", model: model))]
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
        if isAnswered {
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
        fail(
            APIError(
                .cli, "The Claude Code CLI wrote a line of more than \(limitBytes >> 20) MiB. Ask for less at once.",
                cause: "a line of more than \(limitBytes) bytes"))
    }

    /// Whether nothing more is expected of the process.
    public var isEnded: Bool { state == .ended }

    // MARK: Lines

    private mutating func controlResponse(_ line: JSONValue) -> [Action] {
        let response = line["response"]
        let isError = response?["subtype"]?.stringValue == "error"
        let words = String((response?["error"]?.stringValue ?? "").prefix(Self.quotedCharacters))
        switch (response?["request_id"]?.stringValue, state) {
        case ("initialize", .opening):
            if isError { return fail(APIError(.cli, "The Claude Code CLI could not be initialized.", cause: words)) }
            if let text = response?["response"]?["claude_code_version"]?.stringValue,
                let version = ClaudeVersion(text), version < .minimum
            {
                return fail(
                    APIError(
                        .cli,
                        "The server's Claude Code CLI is version \(version); this service needs "
                            + "\(ClaudeVersion.minimum) or newer. Its operator can update it with `claude update`."
                    ))
            }
            guard let settings else { return feed(from: 0) }
            state = .configuring
            return [
                .write(
                    Self.line([
                        "type": "control_request", "request_id": "settings",
                        "request": ["subtype": "apply_flag_settings", "settings": settings],
                    ]))
            ]
        case ("settings", .configuring):
            if isError {
                return fail(APIError(.cli, "The Claude Code CLI refused the request's settings.", cause: words))
            }
            return feed(from: 0)
        default:
            return []
        }
    }

    /// Nothing is offered that the CLI could ask for; a request left unanswered would hang it.
    private func controlRequest(_ line: JSONValue) -> [Action] {
        [
            .write(
                Self.line([
                    "type": "control_response",
                    "response": [
                        "subtype": "error", "request_id": line["request_id"] ?? nil,
                        "error": "not supported by this host",
                    ],
                ]))
        ]
    }

    private mutating func feed(from first: Int) -> [Action] {
        var lines: [UInt8] = []
        for index in first..<request.turns.count {
            let turn = request.turns[index]
            let isLast = index == request.turns.count - 1
            switch turn.role {
            case .assistant:
                lines += Self.line([
                    "type": "assistant", "message": ["role": "assistant", "content": .array(turn.blocks)],
                    "parent_tool_use_id": nil, "session_id": "",
                ])
            case .user:
                var line = JSONObject([
                    .init(key: "type", value: "user"),
                    .init(key: "message", value: ["role": "user", "content": .array(turn.blocks)]),
                    .init(key: "parent_tool_use_id", value: nil),
                    .init(key: "session_id", value: ""),
                    .init(key: "client_composed", value: true),
                ])
                if !isLast { line["shouldQuery"] = false }
                lines += Self.line(.object(line))
                if !isLast {
                    state = .feeding(next: index + 1)
                    return [.write(lines)]
                }
            }
        }
        state = .running
        return [.write(lines)]
    }

    private mutating func streamEvent(_ line: JSONValue) -> [Action] {
        // A subagent's words are not the answer.
        guard state == .running, !isAnswered, let event = line["event"], line["parent_tool_use_id"]?.isNull ?? true
        else {
            return []
        }
        switch event["type"]?.stringValue {
        case "content_block_delta":
            guard let delta = event["delta"], delta["type"]?.stringValue == "text_delta",
                let piece = delta["text"]?.stringValue, !piece.isEmpty
            else { return [] }
            hasText = true
            if request.profile == .chat { text += piece }
            return [.event(.text(piece))]
        case "message_start":
            // The CLI asks again after a stream that broke off; what a client has been sent can't be taken back.
            if request.profile == .chat, request.isStreaming, hasText { return fail(Self.brokenStream) }
            text = ""
            hasText = false
            let message = event["message"]
            messageID = message?["id"]?.stringValue ?? ""
            model = message?["model"]?.stringValue ?? ""
            usage = TokenUsage(message?["usage"])
            stopReason = nil
            return [.event(.messageStarted(id: messageID, model: model, usage: usage))]
        case "message_delta":
            usage = TokenUsage(event["usage"], previous: usage)
            if let reason = event["delta"]?["stop_reason"]?.stringValue { stopReason = StopReason(reason) }
            return []
        case "message_stop":
            // The CLI closes the message of a stream that broke off by itself, without a reason to stop.
            guard let reason = stopReason else { return [] }
            let ended = Action.event(.messageEnded(stopReason: reason, usage: usage))
            guard request.profile == .chat else { return [ended] }
            isAnswered = true
            if reason == .endTurn, hasText { return [ended, .event(.answered)] }
            // After a cut, a refusal or an empty answer the CLI asks the model to go on by itself: the caller wants what
            // the model said, and pays for no more.
            state = .ended
            return [ended, .event(.answered), .end]
        default:
            return []
        }
    }

    private mutating func result(_ line: JSONValue) -> [Action] {
        if case .feeding(let next) = state { return feed(from: next) }
        guard state == .running else { return [] }
        let result = line["result"]?.stringValue ?? ""
        if isAnswered {
            state = .ended
            return [.event(.finished(Self.summary(line, result: result))), .end]
        }
        if line["is_error"]?.boolValue ?? (line["subtype"]?.stringValue != "success") {
            return fail(ClaudeFailure.error(result: line, model: request.model))
        }
        var actions: [Action] = []
        if request.profile == .chat {
            // The whole answer came without a stream: the CLI fell back to a plain call after its stream broke off.
            if !request.isStreaming { text = "" }
            // Bytes, not characters: a piece may have ended inside one.
            guard result.utf8.starts(with: text.utf8) else { return fail(Self.brokenStream) }
            guard !result.isEmpty else {
                return fail(
                    APIError(.upstream, "The model's answer was empty. Try again.", cause: "result without text"))
            }
            usage = TokenUsage(line["usage"])
            if messageID.isEmpty || !request.isStreaming {
                messageID = "msg_" + (line["uuid"]?.stringValue ?? "").filter { $0 != "-" }
                actions.append(.event(.messageStarted(id: messageID, model: model, usage: usage)))
            }
            let rest = String(decoding: result.utf8.dropFirst(text.utf8.count), as: UTF8.self)
            if !rest.isEmpty { actions.append(.event(.text(rest))) }
            let reason = line["stop_reason"]?.stringValue.map { StopReason($0) } ?? .endTurn
            actions.append(.event(.messageEnded(stopReason: reason, usage: usage)))
        }
        state = .ended
        return actions + [.event(.answered), .event(.finished(Self.summary(line, result: result))), .end]
    }

    private mutating func fail(_ error: APIError) -> [Action] {
        state = .ended
        return [.event(.failed(error)), .end]
    }

    private static let brokenStream = APIError(
        .upstream, "The upstream API's stream broke off in the middle of the answer. Send the request again.",
        cause: "the CLI began the message anew")

    private static func summary(_ line: JSONValue, result: String) -> RunSummary {
        RunSummary(
            result: result, usage: TokenUsage(line["usage"]), costUSD: line["total_cost_usd"]?.doubleValue,
            turnCount: line["num_turns"]?.intValue ?? 0, sessionID: line["session_id"]?.stringValue ?? "")
    }

    private static func line(_ value: JSONValue) -> [UInt8] {
        var bytes = JSONWriter.bytes(value)
        bytes.append(0x0A)
        return bytes
    }
}
