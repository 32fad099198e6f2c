/// Decodes the items of a response's `input` into turns.
enum ResponsesInput {
    /// Appends all of `input`: a text or items.
    ///
    /// - Returns: The items as they were sent; a text as the item it stands for.
    static func append(_ fields: FieldReader, to request: inout RunRequest) throws(APIError) -> [JSONValue] {
        guard let input = fields.value("input") else {
            if fields.value("previous_response_id") == nil { _ = try fields.required("input") }
            return []
        }
        if let text = input.stringValue {
            let item: JSONValue = ["type": "message", "role": "user", "content": .string(text)]
            guard !text.isBlank else { throw .invalid("input", "`input` has no text. Send some.") }
            request.append(.user, [RunRequest.Turn.text(text)])
            return [item]
        }
        guard let items = input.arrayValue else {
            throw .invalid("input", "`input` must be a string or an array of items, not \(input.kindDescription).")
        }
        guard !items.isEmpty || fields.value("previous_response_id") != nil else {
            throw .invalid("input", "`input` is empty. Send at least one user message.")
        }
        for (index, item) in items.enumerated() {
            try appendItem(try FieldReader(item, path: "input[\(index)]"), to: &request)
        }
        return items
    }

    private static func appendItem(_ item: FieldReader, to request: inout RunRequest) throws(APIError) {
        switch try kind(item) {
        case "message": try appendMessage(item, to: &request)
        case "function_call":
            let id = try text(item, "call_id")
            let name = try text(item, "name")
            try FunctionTools.checkName(name, path: item.path("name"), limit: 64)
            let arguments = try item.string("arguments") ?? ""
            request.append(.assistant, [FunctionTools.callBlock(id: id, name: name, arguments: arguments)])
        case "function_call_output":
            let id = try text(item, "call_id")
            _ = try item.required("output")
            let content = try ContentParts.responses.blocks(item, "output")
            request.append(.user, [FunctionTools.resultBlock(id: id, content: content)])
        case "reasoning":
            // A summary alone is not what the model thought.
            guard let content = try item.string("encrypted_content"), !content.isEmpty else { return }
            let block = try ResponsesReasoning.decode(content, path: item.path("encrypted_content"))
            request.append(.assistant, [block])
        default:
            throw .invalid(
                item.path("type"),
                "`\(item.path("type"))` must be message, function_call, function_call_output or reasoning: other items "
                    + "are not served here. Send what an item_reference stands for, or use previous_response_id.")
        }
    }

    /// The item's type; a message may leave it out, and so may a reference.
    private static func kind(_ item: FieldReader) throws(APIError) -> String {
        if let kind = try item.string("type") { return kind }
        if item.value("role") != nil { return "message" }
        if item.value("id") != nil { return "item_reference" }
        throw .invalid(item.path("type"), "`\(item.path("type"))` is missing.")
    }

    private static func appendMessage(_ item: FieldReader, to request: inout RunRequest) throws(APIError) {
        _ = try item.required("role")
        let role = try item.choice("role", of: ["user", "assistant", "system", "developer"])
        _ = try item.required("content")
        switch role {
        case "user": request.append(.user, try ContentParts.responses.saidBlocks(item))
        case "assistant":
            let texts = try ContentParts.responses.texts(item)
            if !texts.isEmpty { request.append(.assistant, texts.map { RunRequest.Turn.text($0) }) }
        default:
            let texts = try ContentParts.responses.texts(item)
            if !texts.isEmpty { request.system.append(texts.joined(separator: "\n")) }
        }
    }

    private static func text(_ fields: FieldReader, _ key: String) throws(APIError) -> String {
        _ = try fields.required(key)
        return try fields.string(key) ?? ""
    }
}
