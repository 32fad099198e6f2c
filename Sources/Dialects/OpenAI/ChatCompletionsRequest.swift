/// Decodes `POST /v1/chat/completions`.
///
/// docs/compatibility.md says of each parameter what becomes of it.
public enum ChatCompletionsRequest {
    private static let used: Set<String> = [
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools",
        "functions", "response_format", "tool_choice", "function_call", "parallel_tool_calls", "stop",
        "reasoning_effort", "reasoning", "thinking", "include_reasoning", "logprobs", "modalities",
        "session_id",
    ]

    /// The request.
    ///
    /// One that continues a session is not whole before ``RunRequest/continuing(_:)``.
    ///
    /// - Parameter session: What the request's header says of a session; `session_id` and `store` count more.
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue, session: SessionWish = .none) throws(APIError) -> RunRequest {
        let fields = try FieldReader(json, path: "")
        try OpenAIParameters.checkIgnored(fields)
        try refuseUnserved(fields)
        let legacyLimit = try fields.positiveInteger("max_tokens")
        var request = RunRequest(
            model: try fields.string("model"), turns: [],
            maxOutputTokens: try fields.positiveInteger("max_completion_tokens") ?? legacyLimit,
            isStreaming: try fields.bool("stream") ?? false,
            ignoredParameters: fields.names.filter { !used.contains($0) })
        request.reply.includesUsage = try OpenAIParameters.includesUsage(fields)
        request.choiceCount = try fields.positiveInteger("n") ?? 1
        request.session = session
        if try fields.bool("store") == true {
            if session == .none { request.session = .new }
            request.ignoredParameters.removeAll { $0 == "store" }
        }
        try request.readSession(fields)
        request.stopSequences = try OpenAIParameters.stop(fields)
        try decodeThinking(fields, &request)
        let messages = try fields.messages()
        for (index, message) in messages.enumerated() {
            try ChatMessages.append(message, path: "messages[\(index)]", to: &request)
        }
        try decodeTools(fields, &request)
        if let format = fields.value("response_format") {
            try decodeFormat(try FieldReader(format, path: "response_format"), &request)
        }
        try request.requireUserTurnLast()
        if !request.session.isExisting { try request.requireToolResults() }
        return request
    }

    // MARK: Tools

    private static func decodeTools(_ fields: FieldReader, _ request: inout RunRequest) throws(APIError) {
        let tools = try fields.array("tools") ?? []
        let functions = try fields.array("functions") ?? []
        for (index, tool) in tools.enumerated() {
            let tool = try FieldReader(tool, path: "tools[\(index)]")
            _ = try tool.required("type")
            guard try tool.string("type") == "function" else {
                throw .invalid(
                    tool.path("type"), "`\(tool.path("type"))` must be `function`: other tools are not served here.")
            }
            let function = try FieldReader(try tool.required("function"), path: tool.path("function"))
            try FunctionTools.append(function, to: &request)
        }
        for (index, function) in functions.enumerated() {
            try FunctionTools.append(try FieldReader(function, path: "functions[\(index)]"), to: &request)
        }
        request.reply.usesLegacyFunctions = tools.isEmpty && !functions.isEmpty
        let isParallel = try fields.bool("parallel_tool_calls") ?? !request.reply.usesLegacyFunctions
        if request.tools.isEmpty {
            try refuseChoiceWithoutTools(fields)
            request.tools = FunctionTools.historical(request.turns)
            if !request.tools.isEmpty { request.toolChoice = FunctionTools.choice("none", isParallel: true) }
            return
        }
        request.toolChoice = try choice(fields, isParallel: isParallel, &request)
        // The API takes no forced choice from a model that thinks first.
        if ["any", "tool"].contains(request.toolChoice?["type"]?.stringValue) {
            request.thinking = .off
            request.reply.showsThinking = false
        }
    }

    private static func choice(
        _ fields: FieldReader, isParallel: Bool, _ request: inout RunRequest
    ) throws(APIError) -> JSONObject? {
        let key = request.reply.usesLegacyFunctions ? "function_call" : "tool_choice"
        guard let choice = fields.value(key) else { return FunctionTools.choice("auto", isParallel: isParallel) }
        if let word = choice.stringValue {
            switch word {
            case "none", "auto": return FunctionTools.choice(word, isParallel: isParallel)
            case "required" where key == "tool_choice": return FunctionTools.choice("any", isParallel: isParallel)
            default: throw .invalid(key, "`\(key)` must be none, auto, required, or name a function.")
            }
        }
        let object = try FieldReader(choice, path: key)
        if key == "tool_choice", try object.string("type") == "allowed_tools" {
            return try allowed(object, isParallel: isParallel, &request)
        }
        var named = object
        if key == "tool_choice" {
            guard try object.string("type") == "function" else {
                throw .invalid("tool_choice.type", "`tool_choice.type` must be `function` or `allowed_tools`.")
            }
            named = try FieldReader(try object.required("function"), path: "tool_choice.function")
        }
        let name = try named.required("name").stringValue ?? ""
        try requireTool(name, named.path("name"), request)
        return FunctionTools.choice("tool", name: name, isParallel: isParallel)
    }

    /// Some of the tools only: the others are not offered.
    private static func allowed(
        _ choice: FieldReader, isParallel: Bool, _ request: inout RunRequest
    ) throws(APIError) -> JSONObject? {
        let allowed = try FieldReader(try choice.required("allowed_tools"), path: choice.path("allowed_tools"))
        var names: [String] = []
        for (index, tool) in (try allowed.array("tools") ?? []).enumerated() {
            let path = "\(allowed.path("tools"))[\(index)]"
            let name = tool["function"]?["name"]?.stringValue ?? tool["name"]?.stringValue ?? ""
            try requireTool(name, path, request)
            names.append(name)
        }
        request.tools.removeAll { !names.contains($0.name) }
        let mode = try allowed.choice("mode", of: ["auto", "required"])
        return FunctionTools.choice(mode == "required" ? "any" : "auto", isParallel: isParallel)
    }

    private static func requireTool(_ name: String, _ path: String, _ request: RunRequest) throws(APIError) {
        guard request.tools.contains(where: { $0.name == name }) else {
            throw .invalid(path, "`\(path)` names a function that is not among the request's tools.")
        }
    }

    private static func refuseChoiceWithoutTools(_ fields: FieldReader) throws(APIError) {
        for key in ["tool_choice", "function_call"] {
            guard let choice = fields.value(key), choice != "none", choice != "auto" else { continue }
            throw .invalid(key, "`\(key)` needs `tools` to choose from.")
        }
    }

    // MARK: Thinking and structure

    /// `reasoning_effort` is the vendor's; `reasoning`, `thinking` and `include_reasoning` are what clients of other servers
    /// with this API send to be shown `reasoning_content`.
    private static func decodeThinking(_ fields: FieldReader, _ request: inout RunRequest) throws(APIError) {
        request.thinking = .off
        var effort = try OpenAIParameters.effort(fields, "reasoning_effort")
        var isShown = try fields.bool("include_reasoning") ?? false
        if let reasoning = fields.value("reasoning") {
            let reasoning = try FieldReader(reasoning, path: "reasoning")
            effort = try OpenAIParameters.effort(reasoning, "effort") ?? effort
            let isExcluded = try reasoning.bool("exclude") ?? false
            let isEnabled = try reasoning.bool("enabled") ?? true
            isShown = isEnabled && !isExcluded
        }
        if let thinking = fields.value("thinking") {
            let thinking = try FieldReader(thinking, path: "thinking")
            isShown = try thinking.choice("type", of: ["enabled", "adaptive", "disabled"]) != "disabled"
        }
        if effort == "none" { isShown = false }
        if let effort, effort != "none" {
            request.effort = effort
            request.thinking = .automatic
        }
        if isShown {
            request.thinking = .summarized
            request.reply.showsThinking = true
        }
    }

    private static func decodeFormat(_ format: FieldReader, _ request: inout RunRequest) throws(APIError) {
        _ = try format.required("type")
        switch try format.choice("type", of: ["text", "json_object", "json_schema"]) {
        case "json_object": try request.requireAnswer(fitting: ["type": "object"], path: "response_format")
        case "json_schema":
            let wrapper = try FieldReader(try format.required("json_schema"), path: format.path("json_schema"))
            try request.requireAnswer(fitting: try wrapper.required("schema"), path: wrapper.path("schema"))
        default: break
        }
    }

    /// What would change the answer and can't be had is refused, not dropped.
    private static func refuseUnserved(_ fields: FieldReader) throws(APIError) {
        if try fields.bool("logprobs") == true {
            throw .invalid("logprobs", "`logprobs`: the Claude Code CLI gives no probabilities. Leave it out.")
        }
        if let modalities = try fields.strings("modalities"), modalities.contains(where: { $0 != "text" }) {
            throw .invalid("modalities", "`modalities` must be [\"text\"]: other output is not served here.")
        }
        for name in ["audio", "web_search_options"] where fields.value(name) != nil {
            throw .invalid(name, "`\(name)` is not served here. Leave it out.")
        }
    }
}
