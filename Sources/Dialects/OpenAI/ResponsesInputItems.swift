/// A request's input as `GET /v1/responses/ID/input_items` lists it.
enum ResponsesInputItems {
    /// The items in order, each with an id, a status and its content as parts.
    ///
    /// - Parameter unique: What makes the ids of this request's items its own.
    static func items(_ input: [JSONValue], unique: String) -> [JSONValue] {
        input.enumerated().compactMap { index, item in
            guard var object = item.objectValue else { return nil }
            let kind = object["type"]?.stringValue ?? "message"
            var listed = JSONObject()
            listed["id"] = .string(object["id"]?.stringValue ?? "\(prefix(kind))_\(unique)_in\(index)")
            listed["type"] = .string(kind)
            if kind != "reasoning" { listed["status"] = "completed" }
            if kind == "message" { object["content"] = parts(object) }
            if kind == "function_call_output", let output = object["output"]?.arrayValue {
                object["output"] = .array(output.map(part))
            }
            for member in object.members where !["id", "type"].contains(member.key) && !member.value.isNull {
                listed[member.key] = member.value
            }
            return .object(listed)
        }
    }

    private static func prefix(_ kind: String) -> String {
        switch kind {
        case "function_call": "fc"
        case "function_call_output": "fco"
        case "reasoning": "rs"
        default: "msg"
        }
    }

    private static func parts(_ message: JSONObject) -> JSONValue {
        guard let text = message["content"]?.stringValue else {
            return .array((message["content"]?.arrayValue ?? []).map(part))
        }
        return [part(["type": message["role"] == "assistant" ? "output_text" : "input_text", "text": .string(text)])]
    }

    /// A part with the members that the vendor's types can't do without.
    private static func part(_ part: JSONValue) -> JSONValue {
        guard var object = part.objectValue else { return part }
        let missing: [(String, JSONValue)] =
            switch object["type"]?.stringValue {
            case "output_text": [("annotations", []), ("logprobs", [])]
            case "input_image": [("detail", "auto")]
            default: []
            }
        for (key, value) in missing where object[key] == nil || object[key] == .null { object[key] = value }
        return .object(object)
    }
}
