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
            _ = try fields.required("content")
            let text = try ContentParts.chat.texts(fields).joined(separator: "\n")
            if !text.isBlank { request.system.append(text) }
        case "user": try appendUser(fields, name: name, to: &request)
        case "assistant": try appendAssistant(fields, to: &request)
        case "tool":
            _ = try fields.required("tool_call_id")
            let id = try fields.string("tool_call_id") ?? ""
            request.append(.user, [FunctionTools.resultBlock(id: id, content: try ContentParts.chat.blocks(fields))])
        default:
            // Results had no id before `tool_calls`: the last call of that function is meant.
            let content = try ContentParts.chat.blocks(fields)
            request.append(.user, [FunctionTools.resultBlock(id: legacyID(request.turns), content: content)])
        }
    }

    private static func appendUser(
        _ fields: FieldReader, name: String?, to request: inout RunRequest
    ) throws(APIError) {
        _ = try fields.required("content")
        var blocks = try ContentParts.chat.saidBlocks(fields)
        // The API has no names of speakers; a chat of several people would be lost without them.
        if let name, !name.isBlank { blocks.insert(RunRequest.Turn.text("\(name):"), at: 0) }
        request.append(.user, blocks)
    }

    private static func appendAssistant(_ fields: FieldReader, to request: inout RunRequest) throws(APIError) {
        var blocks = try ContentParts.chat.texts(fields).filter { !$0.isBlank }.map { RunRequest.Turn.text($0) }
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
}
