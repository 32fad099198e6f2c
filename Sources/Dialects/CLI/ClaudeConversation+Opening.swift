extension ClaudeConversation {
    /// Characters of the CLI's own words that go into an error message.
    static let quotedCharacters = 400

    /// The first lines.
    public mutating func start() -> [Action] {
        switch entry {
        case .cold: [.write(ClaudeLine.control("initialize", initialization))]
        case .warm: configure()
        }
    }

    private var initialization: JSONObject {
        var initialize = JSONObject([("subtype", "initialize"), ("hooks", nil)])
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
        return initialize
    }

    // MARK: Answers

    /// The CLI answers a request of ours.
    mutating func controlResponse(_ line: JSONValue) -> [Action] {
        let response = line["response"]
        let isError = response?["subtype"]?.stringValue == "error"
        let words = String((response?["error"]?.stringValue ?? "").prefix(Self.quotedCharacters))
        let id = response?["request_id"]?.stringValue ?? ""
        switch state {
        case .opening where id == "initialize":
            if isError { return fail(APIError(.cli, "The Claude Code CLI could not be initialized.", cause: words)) }
            if let error = Self.versionError(response?["response"]) { return fail(error) }
            return configure()
        case .configuring:
            guard let step = Step(rawValue: id) else { return [] }
            if isError {
                return fail(APIError(.cli, "The Claude Code CLI refused the request's settings.", cause: words))
            }
            if step == .servers, let error = serverError(response?["response"]) { return fail(error) }
            awaited.remove(step)
            return feedIfReady()
        case .counting where id == "usage":
            guard !isError, let tokens = response?["response"]?["totalTokens"]?.intValue else {
                return fail(APIError(.upstream, "The tokens could not be counted. Try again.", cause: words))
            }
            state = .ended
            return [.event(.counted(tokens: tokens)), .event(.answered), .end]
        default:
            return []
        }
    }

    /// What is said of a CLI that is too old.
    ///
    /// - Parameter response: Its answer to `initialize`.
    static func versionError(_ response: JSONValue?) -> APIError? {
        guard let text = response?["claude_code_version"]?.stringValue, let version = ClaudeVersion(text),
            version < .minimum
        else { return nil }
        return APIError(
            .cli,
            "The server's Claude Code CLI is version \(version); this service needs \(ClaudeVersion.minimum) or newer. "
                + "Its operator can update it with `claude update`.")
    }

    /// What the CLI says of MCP servers that it could not reach.
    private func serverError(_ response: JSONValue?) -> APIError? {
        guard let first = response?["errors"]?.objectValue?.members.first else { return nil }
        let words = first.value.stringValue.map { String($0.prefix(Self.quotedCharacters)) }
        guard request.isAgent else {
            return APIError(.cli, "The Claude Code CLI did not take the request's tools.", cause: words)
        }
        let path = "mcpServers.\(first.key)"
        return APIError(
            .invalidRequest,
            "`\(path)` could not be started or reached. Check what it is started with, or its address.",
            parameter: path, cause: words)
    }

    // MARK: Settings

    private mutating func configure() -> [Action] {
        state = .configuring
        var lines: [UInt8] = []
        if case .warm(let defaultModel) = entry {
            let system = request.system.filter { !$0.isEmpty }.joined(separator: "\n\n")
            if !system.isEmpty {
                var change = JSONObject([("subtype", "set_model")])
                if let model = model ?? defaultModel { change["model"] = .string(model) }
                change["system_prompt"] = .string(system)
                lines += ask(.model, change)
            }
            if !request.offeredTools.isEmpty {
                lines += ask(
                    .servers, Self.servers([ToolNames.server: ToolNames.ownServer]))
            }
        }
        if let settings {
            lines += ask(.settings, JSONObject([("subtype", "apply_flag_settings"), ("settings", settings)]))
        }
        if request.thinking == .summarized {
            lines += ask(
                .thinking,
                JSONObject([
                    ("subtype", "set_max_thinking_tokens"), ("max_thinking_tokens", nil),
                    ("thinking_display", "summarized"),
                ]))
        }
        if case .agent(let agent) = request.profile, !agent.mcpServers.members.isEmpty {
            lines += ask(.servers, Self.servers(.object(agent.mcpServers)))
        }
        return (lines.isEmpty ? [] : [.write(lines)]) + feedIfReady()
    }

    private mutating func ask(_ step: Step, _ request: JSONObject) -> [UInt8] {
        awaited.insert(step)
        return ClaudeLine.control(step.rawValue, request)
    }

    /// The request by which the CLI has these MCP servers and no others.
    static func servers(_ servers: JSONValue) -> JSONObject {
        JSONObject([("subtype", "mcp_set_servers"), ("servers", servers)])
    }

    /// The CLI asks for the caller's tools; nothing else is offered that it could ask for, and a request left unanswered
    /// would hang it.
    mutating func controlRequest(_ line: JSONValue) -> [Action] {
        let reply: [UInt8]
        if line["request"]?["subtype"]?.stringValue == "mcp_message", !request.offeredTools.isEmpty {
            guard let answer = tools.answer(line) else { return [] }
            reply = answer
        } else {
            reply = ClaudeLine.reply(
                to: line["request_id"], JSONObject([("subtype", "error"), ("error", "not supported by this host")]))
        }
        return [.write(reply)] + feedIfReady()
    }

    // MARK: History

    /// The caller's tools must be known before the model can call one.
    private mutating func feedIfReady() -> [Action] {
        guard state == .configuring, awaited.isEmpty, request.offeredTools.isEmpty || tools.isListed else { return [] }
        return feed(from: 0)
    }

    /// Writes turns up to one that must be acknowledged.
    mutating func feed(from first: Int) -> [Action] {
        var lines: [UInt8] = []
        for index in first..<request.turns.count {
            let turn = request.turns[index]
            let isLast = index == request.turns.count - 1 && !request.countsTokens
            switch turn.role {
            case .assistant: lines += ClaudeLine.assistant(turn.blocks, model: resolvedModel)
            case .user:
                lines += ClaudeLine.user(turn.blocks, isAsked: isLast)
                if !isLast {
                    state = .feeding(next: index + 1)
                    return [.write(lines)]
                }
            }
        }
        if request.countsTokens {
            state = .counting
            lines += ClaudeLine.control("usage", JSONObject([("subtype", "get_context_usage")]))
        } else {
            state = .running
        }
        return [.write(lines)]
    }
}
