/// Decodes the parameters of a response that are neither input nor tools.
enum ResponsesParameters {
    private static let includable: Set<String> = [
        "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
        "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
    ]

    /// Checks what will be ignored or only repeated, and refuses what can't be had.
    static func check(_ fields: FieldReader) throws(APIError) {
        try OpenAIParameters.checkIgnored(fields)
        for name in ["prompt_cache_retention", "previous_response_id"] { _ = try fields.string(name) }
        for name in ["stream_options", "prompt_cache_options"] { _ = try fields.object(name) }
        _ = try fields.choice("truncation", of: ["auto", "disabled"])
        _ = try fields.positiveInteger("max_tool_calls")
        for name in ["conversation", "prompt"] where fields.value(name) != nil {
            throw .invalid(
                name, "`\(name)` is not served here. Send the conversation as `input`, or use `previous_response_id`.")
        }
        guard let metadata = try fields.object("metadata") else { return }
        guard metadata.members.count <= 16 else {
            throw .invalid("metadata", "`metadata` must have at most 16 members, not \(metadata.members.count).")
        }
        for member in metadata.members {
            guard let value = member.value.stringValue, value.utf8.count <= 512 * 4, member.key.utf8.count <= 64 * 4,
                value.unicodeScalars.count <= 512, member.key.unicodeScalars.count <= 64
            else {
                throw .invalid(
                    "metadata",
                    "`metadata` must have names of at most 64 characters and strings of at most 512 characters.")
            }
        }
    }

    /// Whether reasoning items have `encrypted_content`.
    ///
    /// What hosted tools have to include is never there; log probabilities (`message.output_text.logprobs`) can't be had.
    static func includesEncrypted(_ fields: FieldReader) throws(APIError) -> Bool {
        let words = try fields.strings("include") ?? []
        if let index = words.firstIndex(where: { !includable.contains($0) }) {
            throw .invalid(
                "include[\(index)]",
                "`include[\(index)]` must be one of \(includable.sorted().joined(separator: ", ")).")
        }
        return words.contains("reasoning.encrypted_content")
    }

    /// Takes `reasoning`.
    ///
    /// - Returns: What the response repeats of it.
    static func decodeReasoning(_ fields: FieldReader, _ request: inout RunRequest) throws(APIError) -> JSONValue {
        request.thinking = .off
        guard let value = fields.value("reasoning") else { return ["effort": nil, "summary": nil] }
        let reasoning = try FieldReader(value, path: "reasoning")
        let effort = try OpenAIParameters.effort(reasoning, "effort")
        let kinds = ["auto", "concise", "detailed"]
        let older = try reasoning.choice("generate_summary", of: kinds)
        let summary = try reasoning.choice("summary", of: kinds) ?? older
        for name in reasoning.names where !["effort", "summary", "generate_summary"].contains(name) {
            request.ignoredParameters.append("reasoning.\(name)")
        }
        if effort != "none", effort != nil || summary != nil {
            request.effort = effort
            request.thinking = summary == nil ? .automatic : .summarized
        }
        return ["effort": reasoning.value("effort") ?? .null, "summary": summary.map { .string($0) } ?? .null]
    }

    /// Takes `text`.
    ///
    /// - Returns: What the response repeats of it.
    static func decodeText(_ fields: FieldReader, _ request: inout RunRequest) throws(APIError) -> JSONValue {
        var echo = JSONObject([("format", ["type": "text"])])
        guard let value = fields.value("text") else { return .object(echo) }
        let text = try FieldReader(value, path: "text")
        if let verbosity = try text.choice("verbosity", of: ["low", "medium", "high"]) {
            echo["verbosity"] = .string(verbosity)
            request.ignoredParameters.append("text.verbosity")
        }
        guard let value = text.value("format") else { return .object(echo) }
        let format = try FieldReader(value, path: "text.format")
        _ = try format.required("type")
        switch try format.choice("type", of: ["text", "json_object", "json_schema"]) {
        case "json_object":
            try request.requireAnswer(fitting: ["type": "object"], path: "text.format")
            echo["format"] = ["type": "json_object"]
        case "json_schema":
            _ = try format.required("name")
            let name = try format.string("name") ?? ""
            let schema = try format.required("schema")
            try request.requireAnswer(fitting: schema, path: "text.format.schema")
            echo["format"] = [
                "type": "json_schema", "name": .string(name),
                "description": try format.string("description").map { .string($0) } ?? .null, "schema": schema,
                "strict": .bool(try format.bool("strict") ?? true),
            ]
        default: break
        }
        return .object(echo)
    }

    /// The request parameters as the response object repeats them.
    static func echo(_ fields: FieldReader, reasoning: JSONValue, text: JSONValue) -> JSONObject {
        let value: (String, JSONValue) -> (String, JSONValue) = { ($0, fields.value($0) ?? $1) }
        return JSONObject([
            value("instructions", nil), value("max_output_tokens", nil), value("max_tool_calls", nil),
            ("parallel_tool_calls", fields.value("parallel_tool_calls") ?? true), value("previous_response_id", nil),
            ("reasoning", reasoning), value("store", true), value("background", false), value("temperature", 1),
            value("top_p", 1), value("presence_penalty", 0), value("frequency_penalty", 0), value("top_logprobs", 0),
            ("text", text), value("tool_choice", "auto"),
            ("tools", ResponsesTools.echo(fields.value("tools")?.arrayValue ?? [])), value("truncation", "disabled"),
            ("service_tier", "default"), value("metadata", [:]), value("user", nil), value("safety_identifier", nil),
            value("prompt_cache_key", nil), value("prompt_cache_retention", nil),
        ])
    }
}
