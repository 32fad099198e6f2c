/// Decodes the messages of a chat completion into turns.
enum ChatMessages {
    /// Appends one message.
    static func append(_ message: JSONValue, path: String, to request: inout RunRequest) throws(APIError) {
        let fields = try FieldReader(message, path: path)
        _ = try fields.required("role")
        let name = try fields.string("name")
        let role = try fields.choice(
            "role", of: ["system", "developer", "user", "assistant", "tool", "function"])
        switch role {
        case "system", "developer":
            let text = try texts(fields, isRequired: true).joined(separator: "\n")
            if !text.isBlank { request.system.append(text) }
        case "user": try appendUser(fields, name: name, to: &request)
        case "assistant": try appendAssistant(fields, to: &request)
        case "tool":
            _ = try fields.required("tool_call_id")
            let id = try fields.string("tool_call_id") ?? ""
            request.append(.user, [FunctionTools.resultBlock(id: id, content: try blocks(fields))])
        default:
            // Results had no id before `tool_calls`: the last call of that function is meant.
            request.append(
                .user, [FunctionTools.resultBlock(id: legacyID(request.turns), content: try blocks(fields))])
        }
    }

    private static func appendUser(
        _ fields: FieldReader, name: String?, to request: inout RunRequest
    ) throws(APIError) {
        _ = try fields.required("content")
        var blocks = try blocks(fields)
        guard !blocks.isEmpty else {
            throw .invalid(
                fields.path("content"),
                "`\(fields.path("content"))` has no text. Send some, or leave the message out.")
        }
        // The API has no names of speakers; a chat of several people would be lost without them.
        if let name, !name.isBlank { blocks.insert(RunRequest.Turn.text("\(name):"), at: 0) }
        request.append(.user, blocks)
    }

    private static func appendAssistant(_ fields: FieldReader, to request: inout RunRequest) throws(APIError) {
        var blocks = try texts(fields, isRequired: false).filter { !$0.isBlank }.map { RunRequest.Turn.text($0) }
        for (index, call) in (try fields.array("tool_calls") ?? []).enumerated() {
            let call = try FieldReader(call, path: "\(fields.path("tool_calls"))[\(index)]")
            guard try call.string("type") ?? "function" == "function" else {
                throw .invalid(call.path("type"), "`\(call.path("type"))` must be `function`.")
            }
            _ = try call.required("id")
            let function = try FieldReader(try call.required("function"), path: call.path("function"))
            blocks.append(try callBlock(function, id: try call.string("id") ?? ""))
        }
        if let function = fields.value("function_call") {
            let function = try FieldReader(function, path: fields.path("function_call"))
            blocks.append(try callBlock(function, id: "call_legacy_\(request.turns.count)"))
        }
        if !blocks.isEmpty { request.append(.assistant, blocks) }
    }

    private static func callBlock(_ function: FieldReader, id: String) throws(APIError) -> JSONValue {
        _ = try function.required("name")
        let name = try function.string("name") ?? ""
        try FunctionTools.checkName(name, path: function.path("name"), limit: 64)
        return FunctionTools.callBlock(id: id, name: name, arguments: try function.string("arguments") ?? "")
    }

    private static func legacyID(_ turns: [RunRequest.Turn]) -> String {
        turns.last?.blocks.last { $0["type"] == "tool_use" }?["id"]?.stringValue ?? "call_legacy"
    }

    /// The text of a message's `content`: a string or an array of text parts.
    private static func texts(_ fields: FieldReader, isRequired: Bool) throws(APIError) -> [String] {
        if isRequired { _ = try fields.required("content") }
        return try blocks(fields, kinds: ["text", "refusal"]).compactMap { $0["text"]?.stringValue }
    }

    /// The blocks of a message's `content`; blank text is left out, because the API refuses it.
    private static func blocks(
        _ fields: FieldReader, kinds: Set<String> = ["text", "refusal", "image_url", "file"]
    ) throws(APIError) -> [JSONValue] {
        let path = fields.path("content")
        guard let content = fields.value("content") else { return [] }
        if let text = content.stringValue { return text.isBlank ? [] : [RunRequest.Turn.text(text)] }
        guard let parts = content.arrayValue else {
            throw .invalid(path, "`\(path)` must be a string or an array of parts, not \(content.kindDescription).")
        }
        var blocks: [JSONValue] = []
        for (index, part) in parts.enumerated() {
            let part = try FieldReader(part, path: "\(path)[\(index)]")
            _ = try part.required("type")
            let kind = try part.string("type") ?? ""
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
        case "image_url":
            let value = try part.required("image_url")
            // Some clients send the URL alone.
            if let url = value.stringValue { return try MediaBlocks.image(url: url, path: part.path("image_url")) }
            let image = try FieldReader(value, path: part.path("image_url"))
            _ = try image.required("url")
            return try MediaBlocks.image(url: try image.string("url") ?? "", path: image.path("url"))
        case "file":
            let file = try FieldReader(try part.required("file"), path: part.path("file"))
            guard let data = try file.string("file_data") else {
                throw .invalid(
                    file.path("file_data"),
                    "`\(file.path("file_data"))` is missing: files are not kept here, send the file's data.")
            }
            return try MediaBlocks.file(
                data: data, name: try file.string("filename"), path: file.path("file_data"))
        default:
            _ = try part.required(kind)
            let text = try part.string(kind) ?? ""
            if text.isBlank { return nil }
            return RunRequest.Turn.text(text)
        }
    }
}
