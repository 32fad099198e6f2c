/// Decodes `POST /v1/messages` and `POST /v1/messages/count_tokens`.
///
/// docs/compatibility.md says of each parameter what becomes of it.
public enum MessagesRequest {
    private static let used: Set<String> = [
        "model", "messages", "max_tokens", "system", "stream", "tools", "tool_choice", "thinking", "stop_sequences",
        "temperature", "top_p", "top_k", "output_config", "output_format", "session_id",
    ]
    /// The API has them, and the model could not be given what they stand for.
    private static let refused: [(name: String, advice: String)] = [
        ("mcp_servers", "MCP servers are not reached from here. Run them on your side as tools."),
        ("compaction", "summaries are not made here. Leave it out and send what the model should know."),
        ("container", "containers are not served here. Leave it out."),
    ]
    /// A count continues nothing, and has no answer that they could shape.
    private static let uncounted = [
        "session_id", "max_tokens", "stream", "stop_sequences", "output_config", "output_format",
    ]

    /// The request.
    ///
    /// One that continues a session is not whole before ``RunRequest/continuing(_:)``.
    ///
    /// - Parameter session: What the request's header says of a session; `session_id` counts more.
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue, session: SessionWish = .none) throws(APIError) -> RunRequest {
        let fields = try FieldReader(json, path: "")
        _ = try fields.required("max_tokens")
        var request = try decodeAll(fields, session: session)
        request.maxOutputTokens = try fields.positiveInteger("max_tokens")
        request.isStreaming = try fields.bool("stream") ?? false
        try request.requireUserTurnLast()
        return request
    }

    /// The request to count the tokens of a prompt.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func decodeCount(_ json: JSONValue) throws(APIError) -> RunRequest {
        var request = try decodeAll(try FieldReader(json, path: ""), session: nil)
        request.countsTokens = true
        request.isStreaming = false
        request.ignoredParameters += uncounted.filter { json[$0].map { !$0.isNull } ?? false }
        request.outputSchema = nil
        return request
    }

    /// - Parameter session: Nil where the request can have no part in one.
    private static func decodeAll(_ fields: FieldReader, session: SessionWish?) throws(APIError) -> RunRequest {
        for (name, advice) in refused where fields.value(name) != nil {
            throw .invalid(name, "`\(name)`: \(advice)")
        }
        if fields.value("thread") != nil { throw threadError }
        _ = try fields.object("metadata")
        _ = try fields.string("service_tier")
        var request = RunRequest(
            model: try fields.string("model"), turns: [], ignoredParameters: fields.names.filter { !used.contains($0) })
        if let system = fields.value("system") {
            let blocks = try MessageBlocks.system(system, path: "system")
            request.system = blocks.filter { !$0.isBlank }
        }
        for (index, message) in try fields.messages().enumerated() {
            let message = try FieldReader(message, path: "messages[\(index)]")
            _ = try message.required("role")
            guard let role = RunRequest.Role(rawValue: try message.string("role") ?? "") else {
                throw .invalid(message.path("role"), "`\(message.path("role"))` must be user or assistant.")
            }
            let content = try message.required("content")
            let blocks = try MessageBlocks.blocks(content, role: role, path: message.path("content"))
            // The API's own rule; without it the CLI would run a turn that asks nothing.
            guard !blocks.isEmpty else {
                throw .invalid(message.path("content"), "`\(message.path("content"))` is empty. Send some content.")
            }
            request.append(role, blocks)
        }
        if let session {
            request.session = session
            try request.readSession(fields)
        }
        if !request.session.isExisting { try request.requireToolResults() }
        try decodeTools(fields, &request)
        try decodeModelling(fields, &request)
        return request
    }

    /// The vendor's SDK sends the whole history instead when it is told so in these words.
    private static var threadError: APIError {
        var error = APIError.invalid("thread", "`thread`: conversations are not kept here. Send the whole history.")
        error.details = ["error_code": "thread_unsupported_request", "unsupported": []]
        return error
    }

    private static func decodeTools(_ fields: FieldReader, _ request: inout RunRequest) throws(APIError) {
        for (index, tool) in (try fields.array("tools") ?? []).enumerated() {
            let tool = try MessageTools.tool(tool, path: "tools[\(index)]")
            guard !request.tools.contains(where: { $0.name == tool.name }) else {
                throw .invalid("tools[\(index)].name", "`tools[\(index)].name`: two tools have the same name.")
            }
            request.tools.append(tool)
        }
        guard let choice = fields.value("tool_choice") else { return }
        let reader = try FieldReader(choice, path: "tool_choice")
        _ = try reader.required("type")
        let type = try reader.choice("type", of: ["auto", "any", "tool", "none"]) ?? "auto"
        _ = try reader.bool("disable_parallel_tool_use")
        if request.tools.isEmpty {
            guard type == "none" || type == "auto" else {
                throw .invalid("tool_choice", "`tool_choice` needs `tools` to choose from.")
            }
            return
        }
        if type == "tool" {
            _ = try reader.required("name")
            let name = try reader.string("name") ?? ""
            guard request.tools.contains(where: { $0.name == name }) else {
                throw .invalid("tool_choice.name", "`tool_choice.name` is not one of the request's tools.")
            }
        }
        request.toolChoice = choice.objectValue
    }

    private static func decodeModelling(_ fields: FieldReader, _ request: inout RunRequest) throws(APIError) {
        request.stopSequences = try fields.strings("stop_sequences") ?? []
        guard request.stopSequences.allSatisfy({ !$0.isEmpty && $0.utf8.count <= 1000 }) else {
            throw .invalid("stop_sequences", "`stop_sequences`: each string must have 1 to 1000 bytes.")
        }
        _ = try fields.number("temperature", in: 0...1)
        _ = try fields.number("top_p", in: 0...1)
        _ = try fields.integer("top_k")
        for name in ["temperature", "top_p", "top_k"] {
            if let value = fields.value(name) { request.sampling[name] = value }
        }
        request.thinking = .off
        if let thinking = fields.value("thinking") {
            let reader = try FieldReader(thinking, path: "thinking")
            _ = try reader.required("type")
            let type = try reader.choice("type", of: ["enabled", "adaptive", "disabled"])
            if type == "enabled" { _ = try reader.required("budget_tokens") }
            let budget = try reader.positiveInteger("budget_tokens")
            if let budget, let limit = try fields.positiveInteger("max_tokens"), budget >= limit {
                throw .invalid(
                    "thinking.budget_tokens", "`thinking.budget_tokens` must be less than `max_tokens`.")
            }
            if type != "disabled" { request.thinking = .native(thinking) }
        }
        var format = fields.value("output_format").map { ($0, "output_format") }
        if let config = fields.value("output_config") {
            let config = try FieldReader(config, path: "output_config")
            request.effort = try config.choice("effort", of: ["low", "medium", "high", "xhigh", "max"])
            format = config.value("format").map { ($0, "output_config.format") } ?? format
        }
        if let (format, path) = format {
            let format = try FieldReader(format, path: path)
            _ = try format.required("type")
            _ = try format.choice("type", of: ["json_schema"])
            try request.requireAnswer(fitting: try format.required("schema"), path: format.path("schema"))
        }
    }
}
