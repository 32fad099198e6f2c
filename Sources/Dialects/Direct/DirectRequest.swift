/// Decodes `POST /api/run`.
public enum DirectRequest {
    /// Tools of the CLI that a caller may name (CLI 2.1.330, `system/init` with `--tools default`, and older names).
    ///
    /// A closed list, because names become arguments of the CLI's command line, where nothing of a caller's may stand.
    public static let tools = [
        "Agent", "Bash", "Edit", "Glob", "Grep", "LS", "MultiEdit", "NotebookEdit", "Read", "Skill", "Task",
        "TodoWrite",
        "WebFetch", "WebSearch", "Write",
    ]

    /// Tools that neither write nor execute: what a call that names none runs with.
    public static let defaultTools = ["Glob", "Grep", "Read"]

    private static let used: Set<String> = [
        "prompt", "model", "effort", "allowedTools", "disallowedTools", "permissionMode", "workingDirectory",
        "addDirs", "sessionId", "fork", "ephemeral", "systemPrompt", "appendSystemPrompt", "schema", "maxTurns",
        "maxBudgetUsd", "timeoutMs", "mcpServers", "stream", "background",
    ]
    private static let shortestTimeout = 1000

    /// The request.
    ///
    /// Directories are checked for their form alone: who starts the run looks where they are, and says so with
    /// ``RunRequest/resolvingDirectories(_:)``.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue, policy: DirectPolicy) throws(APIError) -> RunRequest {
        let fields = try FieldReader(json, path: "")
        let prompt = try prompt(fields)
        var ignored = fields.names.filter { !used.contains($0) }
        var profile = AgentProfile(
            tools: [], allowRules: [], workingDirectory: try fields.string("workingDirectory"))
        profile.mcpServers = try mcpServers(fields, policy, &ignored)
        try decodeTools(fields, policy, &profile)
        profile.addedDirectories = try directories(fields, "addDirs")
        profile.maxTurns = try fields.positiveInteger("maxTurns")
        profile.maxBudgetUSD = try budget(fields)
        profile.appendedSystemPrompt = try words(fields, "appendSystemPrompt")
        var request = RunRequest(
            model: try fields.string("model"), turns: [], isStreaming: try fields.bool("stream") ?? false,
            profile: .agent(profile), ignoredParameters: ignored)
        request.append(.user, prompt)
        if let system = try words(fields, "systemPrompt") { request.system = [system] }
        request.effort = try fields.choice("effort", of: ["low", "medium", "high", "xhigh", "max"])
        if let schema = fields.value("schema") {
            try request.requireAnswer(fitting: schema, path: "schema")
            try refuseCombinators(schema)
        }
        request.isBackground = try fields.bool("background") ?? false
        guard !request.isBackground || !request.isStreaming else {
            throw .invalid(
                "background",
                "`background` and `stream` exclude each other. A background run's events are at GET /api/runs/ID/events."
            )
        }
        // Otherwise the CLI asks for no summaries, and the thoughts of which a stream tells would be empty.
        if request.isStreaming || request.isBackground { request.thinking = .summarized }
        request.session = try session(fields)
        request.timeout = try timeout(fields, policy)
        return request
    }

    private static func prompt(_ fields: FieldReader) throws(APIError) -> [JSONValue] {
        let prompt = try fields.required("prompt")
        if let text = prompt.stringValue {
            guard !text.isBlank else { throw .invalid("prompt", "`prompt` is blank. Say what is to be done.") }
            return [RunRequest.Turn.text(text)]
        }
        let blocks = try MessageBlocks.prompt(prompt, path: "prompt")
        guard !blocks.isEmpty else { throw .invalid("prompt", "`prompt` is empty. Say what is to be done.") }
        return blocks
    }

    /// A text that has more than white space.
    private static func words(_ fields: FieldReader, _ key: String) throws(APIError) -> String? {
        guard let text = try fields.string(key) else { return nil }
        guard !text.isBlank else { throw .invalid(key, "`\(key)` is blank. Leave it out, or say something.") }
        return text
    }

    private static func directories(_ fields: FieldReader, _ key: String) throws(APIError) -> [String] {
        let directories = try fields.strings(key) ?? []
        for (index, directory) in directories.enumerated() {
            let path = "\(key)[\(index)]"
            guard directory.hasPrefix("/"), !directory.utf8.contains(0) else {
                throw .invalid(path, "`\(path)` must be an absolute path.")
            }
            guard !directory.split(separator: "/").contains("..") else {
                throw .invalid(path, "`\(path)` must not have `..` in it.")
            }
        }
        return directories
    }

    private static func budget(_ fields: FieldReader) throws(APIError) -> Double? {
        guard let budget = try fields.number("maxBudgetUsd", in: 0...1_000_000) else { return nil }
        guard budget > 0 else { throw .invalid("maxBudgetUsd", "`maxBudgetUsd` must be more than 0.") }
        return budget
    }

    /// The API takes no alternatives at the top of a tool's schema, and the CLI asks for the answer by a tool.
    private static func refuseCombinators(_ schema: JSONValue) throws(APIError) {
        for name in ["anyOf", "oneOf", "allOf"] where schema[name] != nil {
            throw .invalid(
                "schema.\(name)",
                "`schema.\(name)` can't stand at the schema's root. Put it into one of its `properties`.")
        }
    }

    private static func session(_ fields: FieldReader) throws(APIError) -> SessionWish {
        let isEphemeral = try fields.bool("ephemeral") ?? false
        let forks = try fields.bool("fork") ?? false
        guard let id = try fields.string("sessionId") else {
            guard !forks else { throw .invalid("fork", "`fork` needs `sessionId`: the session to go on from.") }
            return isEphemeral ? .none : .new
        }
        guard !isEphemeral else {
            throw .invalid(
                "ephemeral",
                "`ephemeral` and `sessionId` exclude each other. To leave the session as it is, use `fork`.")
        }
        return .existing(id: id, forks: forks)
    }

    private static func timeout(_ fields: FieldReader, _ policy: DirectPolicy) throws(APIError) -> Duration? {
        let (seconds, attoseconds) = policy.timeoutLimit.components
        let limit = max(shortestTimeout, Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000))
        return try fields.integer("timeoutMs", in: shortestTimeout...limit).map { .milliseconds($0) }
    }

    private static func mcpServers(
        _ fields: FieldReader, _ policy: DirectPolicy, _ ignored: inout [String]
    ) throws(APIError) -> JSONObject {
        guard let servers = fields.value("mcpServers") else { return JSONObject() }
        let reader = try FieldReader(servers, path: "mcpServers")
        guard policy.allowsMCPServers || reader.names.isEmpty else {
            throw APIError(
                .forbidden,
                "`mcpServers`: this service takes no MCP servers of callers; its operator could (ALLOW_MCP_SERVERS).",
                parameter: "mcpServers")
        }
        return try MCPServers.decode(reader, ignored: &ignored)
    }
}
