/// Decodes `POST /v1/messages`.
public enum MessagesRequest {
    private static let used: Set<String> = [
        "model", "messages", "max_tokens", "system", "stream", "tools", "tool_choice", "thinking",
    ]

    /// The request.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue) throws(APIError) -> RunRequest {
        let fields = try FieldReader(json, path: "")
        try check(fields)
        _ = try fields.required("max_tokens")
        var request = RunRequest(
            model: try fields.string("model"), turns: [], maxOutputTokens: try fields.positiveInteger("max_tokens"),
            isStreaming: try fields.bool("stream") ?? false,
            ignoredParameters: fields.names.filter { !used.contains($0) })
        if fields.value("system") != nil {
            request.system = try texts(fields, "system").filter { !$0.isBlank }
        }
        let messages = try fields.messages()
        for (index, message) in messages.enumerated() {
            let message = try FieldReader(message, path: "messages[\(index)]")
            _ = try message.required("role")
            guard let role = RunRequest.Role(rawValue: try message.string("role") ?? "") else {
                throw .invalid(message.path("role"), "`\(message.path("role"))` must be user or assistant.")
            }
            _ = try message.required("content")
            let texts = try texts(message, "content")
            // The API's own rule; without it the CLI would run a turn that asks nothing.
            guard !texts.isEmpty, texts.allSatisfy({ !$0.isBlank }) else {
                throw .invalid(
                    message.path("content"),
                    "`\(message.path("content"))`: text content must have more than white "
                        + "space.")
            }
            request.append(role, texts.map { RunRequest.Turn.text($0) })
        }
        try request.requireUserTurnLast()
        return request
    }

    /// A string, or an array of text blocks; `cache_control` on them is accepted (the CLI places its own).
    private static func texts(_ fields: FieldReader, _ key: String) throws(APIError) -> [String] {
        let path = fields.path(key)
        let content = try fields.required(key)
        if let text = content.stringValue { return [text] }
        guard let blocks = content.arrayValue else {
            throw .invalid(path, "`\(path)` must be a string or an array of blocks, not \(content.kindDescription).")
        }
        var texts: [String] = []
        for (index, block) in blocks.enumerated() {
            let block = try FieldReader(block, path: "\(path)[\(index)]")
            _ = try block.required("type")
            guard try block.string("type") == "text" else {
                throw .invalid(
                    block.path("type"),
                    "`\(block.path("type"))` must be `text`: other content is not "
                        + "served here.")
            }
            _ = try block.required("text")
            texts.append(try block.string("text") ?? "")
        }
        return texts
    }

    private static func check(_ fields: FieldReader) throws(APIError) {
        _ = try fields.number("temperature", in: 0...1)
        _ = try fields.number("top_p", in: 0...1)
        _ = try fields.integer("top_k")
        _ = try fields.strings("stop_sequences")
        _ = try fields.object("metadata")
        _ = try fields.string("service_tier")
        if let tools = try fields.array("tools"), !tools.isEmpty {
            throw .invalid(
                "tools",
                "`tools`: tool calls are not served here. Send the request without tools, or "
                    + "use POST /api/run with allowedTools.")
        }
        _ = try fields.object("tool_choice")
        if let thinking = fields.value("thinking") {
            let thinking = try FieldReader(thinking, path: "thinking")
            _ = try thinking.required("type")
            if try thinking.string("type") == "enabled" {
                throw .invalid(
                    "thinking",
                    "`thinking`: thinking blocks are not served here. Send `{\"type\": "
                        + "\"disabled\"}` or leave it out.")
            }
        }
    }
}
