/// Decodes `POST /v1/chat/completions`.
public enum ChatCompletionsRequest {
    /// Parameters that are checked, accepted and change nothing: the CLI has no such setting.
    private static let ignoredNumbers: [(name: String, range: ClosedRange<Double>)] = [
        ("temperature", 0...2), ("top_p", 0...1), ("frequency_penalty", -2...2), ("presence_penalty", -2...2),
    ]
    private static let used: Set<String> = [
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools",
        "functions",
        "response_format", "tool_choice", "function_call", "parallel_tool_calls",
    ]

    /// The request.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue) throws(APIError) -> RunRequest {
        let fields = try FieldReader(json, path: "")
        try checkIgnored(fields)
        try refuseUnserved(fields)
        let legacyLimit = try fields.positiveInteger("max_tokens")
        var request = RunRequest(
            model: try fields.string("model"), turns: [],
            maxOutputTokens: try fields.positiveInteger("max_completion_tokens") ?? legacyLimit,
            isStreaming: try fields.bool("stream") ?? false,
            ignoredParameters: fields.names.filter { !used.contains($0) })
        if let options = fields.value("stream_options") {
            let options = try FieldReader(options, path: "stream_options")
            request.includesUsage = try options.bool("include_usage") ?? false
        }
        let messages = try fields.messages()
        for (index, message) in messages.enumerated() {
            try append(message, path: "messages[\(index)]", to: &request)
        }
        try request.requireUserTurnLast()
        return request
    }

    private static func append(_ message: JSONValue, path: String, to request: inout RunRequest) throws(APIError) {
        let fields = try FieldReader(message, path: path)
        _ = try fields.required("role")
        _ = try fields.string("name")
        let role = try fields.string("role")
        switch role {
        case "system", "developer":
            let text = try texts(fields, isRequired: true).joined(separator: "\n")
            if !text.isBlank { request.system.append(text) }
        case "user":
            let texts = try texts(fields, isRequired: true).filter { !$0.isBlank }
            guard !texts.isEmpty else {
                throw .invalid(
                    fields.path("content"),
                    "`\(fields.path("content"))` has no text. Send some, or "
                        + "leave the message out.")
            }
            request.append(.user, texts.map { RunRequest.Turn.text($0) })
        case "assistant":
            if fields.value("tool_calls") != nil || fields.value("function_call") != nil {
                throw unservedTools(fields.path("tool_calls"))
            }
            let texts = try texts(fields, isRequired: false).filter { !$0.isBlank }
            if !texts.isEmpty { request.append(.assistant, texts.map { RunRequest.Turn.text($0) }) }
        case "tool", "function":
            throw unservedTools(fields.path("role"))
        default:
            throw .invalid(
                fields.path("role"), "`\(fields.path("role"))` must be one of system, developer, user and assistant.")
        }
    }

    /// The text of a message's `content`: a string or an array of parts.
    private static func texts(_ fields: FieldReader, isRequired: Bool) throws(APIError) -> [String] {
        let path = fields.path("content")
        guard let content = isRequired ? try fields.required("content") : fields.value("content") else { return [] }
        if let text = content.stringValue { return [text] }
        guard let parts = content.arrayValue else {
            throw .invalid(path, "`\(path)` must be a string or an array of parts, not \(content.kindDescription).")
        }
        var texts: [String] = []
        for (index, part) in parts.enumerated() {
            let part = try FieldReader(part, path: "\(path)[\(index)]")
            _ = try part.required("type")
            switch try part.string("type") {
            case "text":
                _ = try part.required("text")
                texts.append(try part.string("text") ?? "")
            case "refusal":
                _ = try part.required("refusal")
                texts.append(try part.string("refusal") ?? "")
            default:
                throw .invalid(
                    part.path("type"),
                    "`\(part.path("type"))` must be `text`: other content is not "
                        + "served here.")
            }
        }
        return texts
    }

    private static func checkIgnored(_ fields: FieldReader) throws(APIError) {
        for (name, range) in ignoredNumbers { _ = try fields.number(name, in: range) }
        for name in ["user", "service_tier", "reasoning_effort"] { _ = try fields.string(name) }
        for name in ["logprobs", "store", "parallel_tool_calls"] { _ = try fields.bool(name) }
        for name in ["seed", "top_logprobs"] { _ = try fields.integer(name) }
        for name in ["metadata", "logit_bias"] { _ = try fields.object(name) }
        if let stop = fields.value("stop"), stop.stringValue == nil { _ = try fields.strings("stop") }
    }

    /// What would change the answer and can't be had is refused, not dropped.
    private static func refuseUnserved(_ fields: FieldReader) throws(APIError) {
        if let count = try fields.positiveInteger("n"), count > 1 {
            throw .invalid(
                "n",
                "`n` must be 1: one request runs the Claude Code CLI once. Send \(min(count, 128)) "
                    + "requests instead.")
        }
        for name in ["tools", "functions"] {
            if let tools = try fields.array(name), !tools.isEmpty { throw unservedTools(name) }
        }
        if let format = fields.value("response_format") {
            let format = try FieldReader(format, path: "response_format")
            _ = try format.required("type")
            if try format.string("type") != "text" {
                throw .invalid(
                    "response_format.type",
                    "`response_format.type` must be `text`: structured output "
                        + "is not served here. Ask for JSON in the prompt.")
            }
        }
    }

    private static func unservedTools(_ parameter: String) -> APIError {
        .invalid(
            parameter,
            "`\(parameter)`: tool calls are not served here. Send the request without tools, or "
                + "use POST /api/run with allowedTools.")
    }
}
