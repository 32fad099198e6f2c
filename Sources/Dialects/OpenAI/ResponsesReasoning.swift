/// A reasoning item's `encrypted_content`: one thinking block of the Messages API as base64 of its JSON.
///
/// Nothing is secret in it: the API signs what it wrote and refuses a thought that is not its own. It lets callers who keep
/// the conversation themselves (`store: false`) send thoughts back.
enum ResponsesReasoning {
    /// The item's `encrypted_content`.
    static func encode(_ block: AnswerBlock) -> String { Base64.encode(JSONWriter.bytes(block.json)) }

    /// The thinking block in an item's `encrypted_content`.
    static func decode(_ text: String, path: String) throws(APIError) -> JSONValue {
        if let bytes = try? Base64.decode(text, path: path), let json = try? JSONParser.parse(bytes) {
            if json["type"] == "thinking", let thinking = json["thinking"]?.stringValue,
                let signature = json["signature"]?.stringValue
            {
                return ["type": "thinking", "thinking": .string(thinking), "signature": .string(signature)]
            }
            if json["type"] == "redacted_thinking", let data = json["data"]?.stringValue {
                return ["type": "redacted_thinking", "data": .string(data)]
            }
        }
        throw .invalid(
            path, "`\(path)` was not made by this service. Leave the reasoning item out, or send it as you received it."
        )
    }
}
