/// Decodes the items of a response's `input` into turns.
enum ResponsesInput {
    private static let textKinds: Set<String> = ["input_text", "output_text", "refusal"]
    private static let mediaKinds: Set<String> = ["input_image", "input_file"]

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
            let content = try blocks(item, "output", kinds: textKinds.union(mediaKinds))
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
        case "user":
            let blocks = try blocks(item, "content", kinds: textKinds.union(mediaKinds))
            guard !blocks.isEmpty else {
                throw .invalid(
                    item.path("content"),
                    "`\(item.path("content"))` has no text. Send some, or leave the message out.")
            }
            request.append(.user, blocks)
        case "assistant":
            let blocks = try blocks(item, "content", kinds: textKinds)
            if !blocks.isEmpty { request.append(.assistant, blocks) }
        default:
            let texts = try blocks(item, "content", kinds: textKinds).compactMap { $0["text"]?.stringValue }
            if !texts.isEmpty { request.system.append(texts.joined(separator: "\n")) }
        }
    }

    /// The blocks of a text or an array of parts; blank text is left out, because the API refuses it.
    private static func blocks(
        _ item: FieldReader, _ key: String, kinds: Set<String>
    ) throws(APIError) -> [JSONValue] {
        let path = item.path(key)
        guard let content = item.value(key) else { return [] }
        if let text = content.stringValue { return text.isBlank ? [] : [RunRequest.Turn.text(text)] }
        guard let parts = content.arrayValue else {
            throw .invalid(path, "`\(path)` must be a string or an array of parts, not \(content.kindDescription).")
        }
        var blocks: [JSONValue] = []
        for (index, part) in parts.enumerated() {
            let part = try FieldReader(part, path: "\(path)[\(index)]")
            let kind = try text(part, "type")
            guard kinds.contains(kind) else {
                throw .invalid(
                    part.path("type"),
                    "`\(part.path("type"))` must be one of \(kinds.sorted().joined(separator: ", ")) here.")
            }
            if let block = try block(part, kind: kind) { blocks.append(block) }
        }
        return blocks
    }

    private static func block(_ part: FieldReader, kind: String) throws(APIError) -> JSONValue? {
        switch kind {
        case "input_image":
            guard let url = try part.string("image_url") else { throw unkept(part, instead: "image_url") }
            return try MediaBlocks.image(url: url, path: part.path("image_url"))
        case "input_file":
            if let data = try part.string("file_data") {
                return try MediaBlocks.file(
                    data: data, name: try part.string("filename"), path: part.path("file_data"))
            }
            guard let url = try part.string("file_url") else { throw unkept(part, instead: "file_data") }
            return try MediaBlocks.document(url: url, path: part.path("file_url"))
        default:
            let key = kind == "refusal" ? "refusal" : "text"
            _ = try part.required(key)
            let text = try part.string(key) ?? ""
            if text.isBlank { return nil }
            return RunRequest.Turn.text(text)
        }
    }

    /// A part without data: it names a file of the vendor's, or nothing at all.
    private static func unkept(_ part: FieldReader, instead key: String) -> APIError {
        guard part.value("file_id") != nil else {
            return .invalid(part.path(key), "`\(part.path(key))` is missing.")
        }
        return .invalid(
            part.path("file_id"),
            "`\(part.path("file_id"))`: files are not kept here. Send the data itself as `\(part.path(key))`.")
    }

    private static func text(_ fields: FieldReader, _ key: String) throws(APIError) -> String {
        _ = try fields.required(key)
        return try fields.string(key) ?? ""
    }
}
