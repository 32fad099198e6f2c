/// Reads the messages of a conversation out of the file in which the CLI keeps it.
///
/// One JSON object a line. Those of type `user` and `assistant` hold messages: each block of an answer has a line of its own,
/// subagents' lines are marked `isSidechain`, the CLI's own words to the model `isMeta`. Anything else is skipped, a line
/// that is no JSON as well.
///
/// Source: files written by CLI 2.1.251 and 2.1.332.
public enum TranscriptReader {
    /// The turns, neighbours of one role together, thinking left out.
    public static func turns(_ bytes: [UInt8]) -> [RunRequest.Turn] {
        var turns: [RunRequest.Turn] = []
        var start = 0
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: 0x0A) ?? bytes.count
            defer { start = end + 1 }
            guard end > start, let line = try? JSONParser.parse(bytes, in: start..<end),
                let role = line["type"]?.stringValue.flatMap({ RunRequest.Role(rawValue: $0) }),
                line["isSidechain"] != true, line["isMeta"] != true
            else { continue }
            let blocks = blocks(line["message"]?["content"])
            guard !blocks.isEmpty else { continue }
            if let last = turns.indices.last, turns[last].role == role {
                turns[last].blocks += blocks
            } else {
                turns.append(RunRequest.Turn(role: role, blocks: blocks))
            }
        }
        return turns
    }

    private static func blocks(_ content: JSONValue?) -> [JSONValue] {
        if let text = content?.stringValue { return [RunRequest.Turn.text(text)] }
        return (content?.arrayValue ?? []).filter { block in
            block["type"] != "thinking" && block["type"] != "redacted_thinking"
        }
    }
}
