/// Lines that are written to the CLI, each with its newline.
enum ClaudeLine {
    /// A request to the CLI itself.
    ///
    /// - Parameter id: By which the CLI answers it.
    static func control(_ id: String, _ request: JSONObject) -> [UInt8] {
        line(["type": "control_request", "request_id": .string(id), "request": .object(request)])
    }

    /// The answer to a request of the CLI's.
    ///
    /// - Parameter response: `subtype` and what belongs to it.
    static func reply(to id: JSONValue?, _ response: JSONObject) -> [UInt8] {
        var response = response
        response["request_id"] = id ?? nil
        return line(["type": "control_response", "response": .object(response)])
    }

    /// What the user says.
    ///
    /// - Parameters:
    ///   - uuid: By which the turn can be taken back.
    ///   - isAsked: Whether the model is to answer; else it is history.
    static func user(_ blocks: [JSONValue], uuid: String? = nil, isAsked: Bool = true) -> [UInt8] {
        var line = JSONObject([
            ("type", "user"), ("message", ["role": "user", "content": .array(blocks)]), ("parent_tool_use_id", nil),
            ("session_id", ""), ("client_composed", true),
        ])
        if let uuid { line["uuid"] = .string(uuid) }
        if !isAsked { line["shouldQuery"] = false }
        return Self.line(.object(line))
    }

    /// What the model has said, as history.
    ///
    /// - Parameter model: The full id of the model that goes on: the CLI drops the thinking of other models.
    static func assistant(_ blocks: [JSONValue], model: String?) -> [UInt8] {
        var message = JSONObject([("role", "assistant"), ("content", .array(blocks.map(inCLIWords)))])
        if let model { message["model"] = .string(model) }
        return line([
            "type": "assistant", "message": .object(message), "parent_tool_use_id": nil, "session_id": "",
        ])
    }

    /// A block with the CLI's name of the tool that it calls.
    static func inCLIWords(_ block: JSONValue) -> JSONValue {
        guard block["type"] == "tool_use", let name = block["name"]?.stringValue, var object = block.objectValue
        else { return block }
        object["name"] = .string(ToolNames.toCLI(name))
        return .object(object)
    }

    private static func line(_ value: JSONValue) -> [UInt8] {
        var bytes = JSONWriter.bytes(value)
        bytes.append(0x0A)
        return bytes
    }
}
