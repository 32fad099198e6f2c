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

    /// The MCP server by which the caller's tools are offered; the CLI must be started with its tools allowed.
    public static let toolServer = ToolNames.server

    private enum State: Equatable {
        case opening, configuring, feeding(next: Int), counting, running, ended
    }

    /// What must be answered before the conversation is fed.
    private enum Step: String { case settings, thinking, servers }

    /// How a run ends that has reached a limit of its caller's: it is an answer, and the conversation goes on from there.
    private static let limits: Set<String> = ["error_max_turns", "error_max_budget_usd"]
    /// Characters of the CLI's own words that go into an error message.
    private static let quotedCharacters = 400

    private let request: RunRequest
    private let settings: JSONValue?
    /// The full id of the model, for the history's messages: the CLI drops the thinking of other models.
    private let resolvedModel: String?
    private var state = State.opening
    private var awaited: Set<Step> = []
    private var tools: ToolServer
    private var reader: MessageReader
    private var isAnswered = false
    private var lastMessageID: String?
    /// Whether the process must be ended at once, because it would go on asking the model.
    public private(set) var isCut = false
    /// How often the CLI has asked its upstream again by itself.
    public private(set) var retryCount = 0

    /// A conversation that begins with ``start()``.
    ///
    /// - Parameters:
    ///   - request: Its last turn is the caller's; earlier ones are history.
    ///   - model: The model in the CLI's own words; nil leaves the CLI's default.
    ///   - resolvedModel: The full id of that model, or of the default; nil if it is unknown.
    public init(_ request: RunRequest, model: String?, resolvedModel: String? = nil) {
        self.request = request
        self.resolvedModel = resolvedModel ?? model
        tools = ToolServer(request.offeredTools)
        reader = MessageReader(request)
        settings = LaunchSettings.settings(for: request, model: model)
    }

    /// The first lines.
    public mutating func start() -> [Action] {
        var initialize = JSONObject([.init(key: "subtype", value: "initialize"), .init(key: "hooks", value: nil)])
        let system = JSONValue.array(request.system.map { .string($0) })
        switch request.profile {
        case .chat where request.usesClaudeCodePrompt:
            if !request.system.isEmpty {
                initialize["appendSystemPrompt"] = .string(request.system.joined(separator: "\n\n"))
            }
        case .chat:
            // An empty prompt keeps Claude Code's own 50 KB out.
            initialize["systemPrompt"] = request.system.isEmpty ? [""] : system
        case .agent(let agent):
            if !request.system.isEmpty { initialize["systemPrompt"] = system }
            if let words = agent.appendedSystemPrompt { initialize["appendSystemPrompt"] = .string(words) }
            // Else a conversation that goes on keeps the prompt that it began with (seen with CLI 2.1.332).
            initialize["systemPromptSnapshot"] = false
        }
        if !request.offeredTools.isEmpty { initialize["sdkMcpServers"] = [.string(ToolNames.server)] }
        if let schema = request.outputSchema { initialize["jsonSchema"] = OutputSchema.forValidator(schema) }
        return [.write(Self.control("initialize", initialize))]
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
        case "assistant", "user": return message(line)
        case "control_response": return controlResponse(line)
        case "control_request": return controlRequest(line)
        case "system" where line["subtype"]?.stringValue == "init" && state == .running: return begun(line)
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
            return configure()
        case (Step.settings.rawValue, .configuring), (Step.thinking.rawValue, .configuring),
            (Step.servers.rawValue, .configuring):
            if isError {
                return fail(APIError(.cli, "The Claude Code CLI refused the request's settings.", cause: words))
            }
            let step = response?["request_id"]?.stringValue.flatMap { Step(rawValue: $0) }
            if step == .servers, let error = Self.serverError(response?["response"]) { return fail(error) }
            if let step { awaited.remove(step) }
            return feedIfReady()
        case ("usage", .counting):
            guard !isError, let tokens = response?["response"]?["totalTokens"]?.intValue else {
                return fail(APIError(.upstream, "The tokens could not be counted. Try again.", cause: words))
            }
            state = .ended
            return [.event(.counted(tokens: tokens)), .event(.answered), .end]
        default:
            return []
        }
    }

    private mutating func configure() -> [Action] {
        state = .configuring
        var lines: [UInt8] = []
        if let settings {
            lines += Self.control(
                Step.settings.rawValue, JSONObject([("subtype", "apply_flag_settings"), ("settings", settings)]))
            awaited.insert(.settings)
        }
        if request.thinking == .summarized {
            lines += Self.control(
                Step.thinking.rawValue,
                JSONObject([
                    ("subtype", "set_max_thinking_tokens"), ("max_thinking_tokens", nil),
                    ("thinking_display", "summarized"),
                ]))
            awaited.insert(.thinking)
        }
        if case .agent(let agent) = request.profile, !agent.mcpServers.members.isEmpty {
            lines += Self.control(
                Step.servers.rawValue,
                JSONObject([("subtype", "mcp_set_servers"), ("servers", .object(agent.mcpServers))]))
            awaited.insert(.servers)
        }
        return (lines.isEmpty ? [] : [.write(lines)]) + feedIfReady()
    }

    /// What the CLI says of MCP servers that it could not reach.
    private static func serverError(_ response: JSONValue?) -> APIError? {
        guard let errors = response?["errors"]?.objectValue?.members, let first = errors.first else { return nil }
        let path = "mcpServers.\(first.key)"
        return APIError(
            .invalidRequest,
            "`\(path)` could not be started or reached. Check what it is started with, or its address.",
            parameter: path, cause: first.value.stringValue.map { String($0.prefix(quotedCharacters)) })
    }

    /// The caller's tools must be known before the model can call one.
    private mutating func feedIfReady() -> [Action] {
        guard state == .configuring, awaited.isEmpty, request.offeredTools.isEmpty || tools.isListed else { return [] }
        return feed(from: 0)
    }

    /// The CLI asks for the caller's tools; nothing else is offered that it could ask for, and a request left unanswered
    /// would hang it.
    private mutating func controlRequest(_ line: JSONValue) -> [Action] {
        var reply: JSONObject
        if line["request"]?["subtype"]?.stringValue == "mcp_message", !request.offeredTools.isEmpty {
            guard let answer = tools.answer(line["request"]?["message"]) else { return [] }
            reply = JSONObject([("subtype", "success"), ("response", answer)])
        } else {
            reply = JSONObject([("subtype", "error"), ("error", "not supported by this host")])
        }
        reply["request_id"] = line["request_id"] ?? nil
        return [.write(Self.line(["type": "control_response", "response": .object(reply)]))] + feedIfReady()
    }

    private mutating func feed(from first: Int) -> [Action] {
        var lines: [UInt8] = []
        for index in first..<request.turns.count {
            let turn = request.turns[index]
            let isLast = index == request.turns.count - 1 && !request.countsTokens
            switch turn.role {
            case .assistant: lines += assistantLine(turn)
            case .user:
                var line = JSONObject([
                    ("type", "user"), ("message", ["role": "user", "content": .array(turn.blocks)]),
                    ("parent_tool_use_id", nil), ("session_id", ""), ("client_composed", true),
                ])
                if !isLast { line["shouldQuery"] = false }
                lines += Self.line(.object(line))
                if !isLast {
                    state = .feeding(next: index + 1)
                    return [.write(lines)]
                }
            }
        }
        if request.countsTokens {
            state = .counting
            lines += Self.control("usage", JSONObject([("subtype", "get_context_usage")]))
        } else {
            state = .running
        }
        return [.write(lines)]
    }

    private func assistantLine(_ turn: RunRequest.Turn) -> [UInt8] {
        let blocks = turn.blocks.map { block -> JSONValue in
            guard block["type"] == "tool_use", let name = block["name"]?.stringValue, var object = block.objectValue
            else { return block }
            object["name"] = .string(ToolNames.toCLI(name))
            return .object(object)
        }
        var message = JSONObject([("role", "assistant"), ("content", .array(blocks))])
        if let resolvedModel { message["model"] = .string(resolvedModel) }
        return Self.line([
            "type": "assistant", "message": .object(message), "parent_tool_use_id": nil, "session_id": "",
        ])
    }

    private mutating func begun(_ line: JSONValue) -> [Action] {
        reader.model = line["model"]?.stringValue ?? ""
        // The CLI says nothing of a schema that it can't use: it leaves the tool out.
        if request.outputSchema != nil,
            line["tools"]?.arrayValue?.contains(.string(ToolNames.structuredOutput)) != true
        {
            isCut = true
            return fail(
                .invalid(
                    request.outputSchemaParameter,
                    "`\(request.outputSchemaParameter ?? "schema")` is no JSON Schema that can be checked: see whether each "
                        + "`type`, `$ref` and `pattern` in it is right (JSON Schema draft 7)."))
        }
        return [.event(.started(sessionID: line["session_id"]?.stringValue ?? "", model: reader.model))]
    }

    private mutating func streamEvent(_ line: JSONValue) -> [Action] {
        // A subagent's words are not the answer.
        guard state == .running, !isAnswered, let event = line["event"], line["parent_tool_use_id"]?.isNull ?? true
        else { return [] }
        var events: [RunEvent] = []
        let verdict = reader.receive(event, into: &events)
        let actions = events.map { Action.event($0) }
        switch verdict {
        case .goesOn: return actions
        case .answered:
            isAnswered = true
            return actions
        case .cut:
            isAnswered = true
            isCut = true
            state = .ended
            return actions + [.end]
        case .broken:
            isCut = true
            return fail(Self.brokenStream)
        }
    }

    /// A whole message of the model's, of which the stream has told already, or what the CLI's tools answered.
    private mutating func message(_ line: JSONValue) -> [Action] {
        guard state == .running, request.isAgent, line["parent_tool_use_id"]?.isNull ?? true else { return [] }
        lastMessageID = line["uuid"]?.stringValue ?? lastMessageID
        guard line["type"] == "user" else { return [] }
        return (line["message"]?["content"]?.arrayValue ?? []).filter { block in
            block["type"] == "tool_result" && !reader.isStructuredCall(block["tool_use_id"]?.stringValue)
        }.map { .event(.toolResult($0)) }
    }

    private mutating func result(_ line: JSONValue) -> [Action] {
        if case .feeding(let next) = state { return feed(from: next) }
        guard state == .running else { return [] }
        let result = line["result"]?.stringValue ?? ""
        let finished = Action.event(.finished(summary(line, result: result)))
        if isAnswered {
            state = .ended
            return [finished, .end]
        }
        let subtype = line["subtype"]?.stringValue
        if request.outputSchema != nil, subtype == "error_max_structured_output_retries" {
            return fail(Self.unstructured)
        }
        if request.isAgent, Self.limits.contains(subtype ?? "") {
            state = .ended
            return [finished, .event(.answered), .end]
        }
        if line["is_error"]?.boolValue ?? (subtype != "success") {
            return fail(ClaudeFailure.error(result: line, model: request.model))
        }
        let usage = TokenUsage(line["usage"])
        let output = line["structured_output"].flatMap { $0.isNull ? Optional<JSONValue>.none : $0 }
        guard request.outputSchema == nil || output != nil else { return fail(Self.unstructured) }
        if request.isAgent {
            // The report is part of the answer.
            state = .ended
            return [finished, .event(.answered), .end]
        }
        // For an answer of which no message was seen.
        let id = "msg_" + (line["uuid"]?.stringValue ?? "").filter { $0 != "-" }
        let events: [RunEvent]
        if let output, request.outputSchema != nil {
            events = reader.structuredAnswer(output, id: id, usage: usage)
        } else {
            // The whole answer came without a stream: the CLI fell back to a plain call after its stream broke off.
            guard !result.isEmpty else {
                return fail(
                    APIError(.upstream, "The model's answer was empty. Try again.", cause: "result without text"))
            }
            let reason = line["stop_reason"]?.stringValue.map { StopReason($0) }
            guard let rest = reader.rest(of: result, id: id, stopReason: reason, usage: usage) else {
                return fail(Self.brokenStream)
            }
            events = rest
        }
        state = .ended
        return events.map { .event($0) } + [finished, .end]
    }

    private mutating func fail(_ error: APIError) -> [Action] {
        state = .ended
        // The caller has the answer: what goes wrong behind it is nothing of his.
        if isAnswered { return [.end] }
        return [.event(.failed(error)), .end]
    }

    private static let brokenStream = APIError(
        .upstream, "The upstream API's stream broke off in the middle of the answer. Send the request again.",
        cause: "the CLI began the message anew")

    private static let unstructured = APIError(
        .upstream,
        "The model did not give an answer that fits the JSON Schema. Try again, or ask for something simpler.",
        cause: "no structured output", isTransient: false)

    private func summary(_ line: JSONValue, result: String) -> RunSummary {
        var usage = TokenUsage(line["usage"])
        // The report of a run that has spent its budget counts none (seen with CLI 2.1.251 and 2.1.332).
        if usage.total == 0 { usage = reader.endedUsage }
        var summary = RunSummary(
            result: result, usage: usage, costUSD: Self.cost(line),
            turnCount: line["num_turns"]?.intValue ?? 0, sessionID: line["session_id"]?.stringValue ?? "")
        summary.ending = line["subtype"]?.stringValue ?? summary.ending
        summary.lastMessageID = lastMessageID
        summary.denials = line["permission_denials"]?.arrayValue ?? []
        if let output = line["structured_output"], !output.isNull { summary.structuredOutput = output }
        return summary
    }

    /// The turn's price.
    ///
    /// The total of a conversation that goes on counts its earlier turns as well (seen with CLI 2.1.332; that of 2.1.251 does
    /// not, and is all it has).
    private static func cost(_ line: JSONValue) -> Double? {
        guard let models = line["model_usage_since_last_result"]?.objectValue?.members, !models.isEmpty else {
            return line["total_cost_usd"]?.doubleValue
        }
        return models.reduce(0) { $0 + ($1.value["costUSD"]?.doubleValue ?? 0) }
    }

    private static func control(_ id: String, _ request: JSONObject) -> [UInt8] {
        line(["type": "control_request", "request_id": .string(id), "request": .object(request)])
    }

    private static func line(_ value: JSONValue) -> [UInt8] {
        var bytes = JSONWriter.bytes(value)
        bytes.append(0x0A)
        return bytes
    }
}
