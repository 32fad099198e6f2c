/// Checks the Messages API's content blocks, which go to the CLI as they are.
///
/// Left out is `cache_control`: the CLI places its own marks, and the API takes four in all.
enum MessageBlocks {
    /// The texts of `system`: a string or text blocks.
    static func system(_ system: JSONValue, path: String) throws(APIError) -> [String] {
        if let text = system.stringValue { return [text] }
        return try elements(system, path: path).map { block throws(APIError) in
            guard try block.string("type") == "text" else { throw unexpected(block, "text") }
            _ = try block.required("text")
            return try block.string("text") ?? ""
        }
    }

    /// A message's blocks.
    static func blocks(
        _ content: JSONValue, role: RunRequest.Role, path: String
    ) throws(APIError) -> [JSONValue] {
        if let text = content.stringValue {
            try requireText(text, path: path)
            return [RunRequest.Turn.text(text)]
        }
        return try elements(content, path: path).map { block throws(APIError) in
            switch (try block.string("type"), role) {
            case ("text", _): try text(block)
            case ("image", .user): try image(block)
            case ("document", .user): try document(block)
            case ("search_result", .user): block.json
            case ("tool_result", .user): try toolResult(block)
            case ("tool_use", .assistant): try toolUse(block)
            case ("thinking", .assistant): try thinking(block)
            case ("redacted_thinking", .assistant): try redactedThinking(block)
            case (_, .user): throw unexpected(block, "text, image, document, search_result or tool_result")
            case (_, .assistant): throw unexpected(block, "text, tool_use, thinking or redacted_thinking")
            }
        }
    }

    /// A prompt's blocks: a user's message without results of tools.
    static func prompt(_ content: JSONValue, path: String) throws(APIError) -> [JSONValue] {
        for (index, block) in (content.arrayValue ?? []).enumerated() where block["type"] == "tool_result" {
            let place = "\(path)[\(index)].type"
            throw .invalid(place, "`\(place)` must be text, image, document or search_result here.")
        }
        return try blocks(content, role: .user, path: path)
    }

    private static func elements(_ content: JSONValue, path: String) throws(APIError) -> [FieldReader] {
        guard let blocks = content.arrayValue else {
            throw .invalid(path, "`\(path)` must be a string or an array of blocks, not \(content.kindDescription).")
        }
        var readers: [FieldReader] = []
        for (index, block) in blocks.enumerated() {
            var object = block.objectValue
            object?["cache_control"] = nil
            let reader = try FieldReader(object.map { .object($0) } ?? block, path: "\(path)[\(index)]")
            _ = try reader.required("type")
            readers.append(reader)
        }
        return readers
    }

    private static func unexpected(_ block: FieldReader, _ kinds: String) -> APIError {
        .invalid(block.path("type"), "`\(block.path("type"))` must be \(kinds) here.")
    }

    private static func requireText(_ text: String, path: String) throws(APIError) {
        guard !text.isBlank else {
            throw .invalid(path, "`\(path)`: text content must have more than white space.")
        }
    }

    private static func text(_ block: FieldReader) throws(APIError) -> JSONValue {
        _ = try block.required("text")
        try requireText(try block.string("text") ?? "", path: block.path("text"))
        return block.json
    }

    private static func image(_ block: FieldReader) throws(APIError) -> JSONValue {
        let source = try FieldReader(try block.required("source"), path: block.path("source"))
        switch try source.string("type") {
        case "base64":
            _ = try source.required("data")
            guard MediaBlocks.imageTypes.contains(try source.string("media_type") ?? "") else {
                throw .invalid(
                    source.path("media_type"),
                    "`\(source.path("media_type"))` must be one of \(MediaBlocks.imageTypes.joined(separator: ", ")).")
            }
            return try MediaBlocks.image(
                mediaType: try source.string("media_type") ?? "", data: try source.string("data") ?? "",
                path: source.path("data"))
        case "url": try requireURL(source)
        default: throw unexpected(source, "base64 or url")
        }
        return block.json
    }

    private static func document(_ block: FieldReader) throws(APIError) -> JSONValue {
        let source = try FieldReader(try block.required("source"), path: block.path("source"))
        switch try source.string("type") {
        case "base64":
            _ = try source.required("data")
            _ = try MediaBlocks.pdf(try source.string("data") ?? "", path: source.path("data"))
        case "url": try requireURL(source)
        case "text":
            _ = try source.required("data")
            try requireText(try source.string("data") ?? "", path: source.path("data"))
        case "content": _ = try source.required("content")
        default: throw unexpected(source, "base64, text, content or url")
        }
        return block.json
    }

    private static func requireURL(_ source: FieldReader) throws(APIError) {
        _ = try source.required("url")
        try MediaBlocks.requireHTTP(try source.string("url") ?? "", path: source.path("url"))
    }

    private static func toolUse(_ block: FieldReader) throws(APIError) -> JSONValue {
        _ = try block.required("id")
        _ = try block.required("name")
        try FunctionTools.checkName(try block.string("name") ?? "", path: block.path("name"), limit: 128)
        _ = try block.required("input")
        _ = try block.object("input")
        var object = JSONObject([("type", "tool_use")])
        object["id"] = .string(FunctionTools.fitID(try block.string("id") ?? ""))
        for name in ["name", "input"] { object[name] = block.value(name) }
        return .object(object)
    }

    private static func toolResult(_ block: FieldReader) throws(APIError) -> JSONValue {
        _ = try block.required("tool_use_id")
        let isError = try block.bool("is_error") ?? false
        var object = JSONObject([("type", "tool_result")])
        object["tool_use_id"] = .string(FunctionTools.fitID(try block.string("tool_use_id") ?? ""))
        if let content = block.value("content") {
            object["content"] = content.stringValue == nil ? .array(try resultBlocks(content, block)) : content
        }
        if isError { object["is_error"] = true }
        return .object(object)
    }

    private static func resultBlocks(_ content: JSONValue, _ block: FieldReader) throws(APIError) -> [JSONValue] {
        try elements(content, path: block.path("content")).map { part throws(APIError) in
            switch try part.string("type") {
            case "text":
                _ = try part.required("text")
                _ = try part.string("text")
                return part.json
            case "image": return try image(part)
            case "document": return try document(part)
            case "search_result": return part.json
            default: throw unexpected(part, "text, image, document or search_result")
            }
        }
    }

    private static func thinking(_ block: FieldReader) throws(APIError) -> JSONValue {
        _ = try block.required("thinking")
        _ = try block.string("thinking")
        _ = try block.required("signature")
        _ = try block.string("signature")
        return block.json
    }

    private static func redactedThinking(_ block: FieldReader) throws(APIError) -> JSONValue {
        _ = try block.required("data")
        _ = try block.string("data")
        return block.json
    }
}
