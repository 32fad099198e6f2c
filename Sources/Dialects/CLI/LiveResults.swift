/// Results of the caller's tools as the CLI takes them over MCP, so that the model gets what it would get from the history.
enum LiveResults {
    /// The most text of a result, in UTF-16 units: more than 50,000 the CLI writes to a file and shows the model a part of
    /// (seen with CLI 2.1.251 and 2.1.332).
    static let textLimit = 45_000

    /// The results in a turn.
    static func results(of blocks: [JSONValue]) -> [(toolUseID: String, result: JSONValue)] {
        blocks.compactMap { block in
            guard let id = block["tool_use_id"]?.stringValue, let parts = parts(of: block) else { return nil }
            return (id, ["content": .array(parts)])
        }
    }

    /// A result's parts in MCP's form; nil where the CLI would not hand it on as it is.
    ///
    /// An error it shortens, in place of nothing it says something, of text it takes only so much, and a picture it makes
    /// smaller (seen with CLI 2.1.251 and 2.1.332).
    static func parts(of block: JSONValue) -> [JSONValue]? {
        guard block["type"] == "tool_result", block["is_error"]?.boolValue != true else { return nil }
        var content = block["content"]?.arrayValue ?? []
        if let text = block["content"]?.stringValue { content = [RunRequest.Turn.text(text)] }
        var size = 0
        var parts: [JSONValue] = []
        for part in content {
            guard part["type"] == "text", let text = part["text"]?.stringValue, !text.isBlank,
                ConversationKey.plain(part) == ConversationKey.plain(RunRequest.Turn.text(text))
            else { return nil }
            size += text.utf16.count
            parts.append(RunRequest.Turn.text(text))
        }
        return parts.isEmpty || size > textLimit ? nil : parts
    }
}
