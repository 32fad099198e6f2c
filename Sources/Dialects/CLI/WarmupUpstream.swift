/// The model's API as far as the turn of a ``ClaudeWarmup`` needs it.
///
/// The first answer calls the tool, the one behind its result is a text. No answer counts any tokens, so the turn has no price.
public enum WarmupUpstream {
    /// The tool that is offered for that turn.
    static let tool = RunRequest.Tool(
        name: "is_ready",
        definition: JSONObject([
            ("description", "Whether it is."), ("input_schema", ["type": "object", "properties": [:]]),
        ]))
    /// The model's id of the call.
    static let callID = "toolu_warmup"

    /// The answer to what was posted to `/v1/messages`.
    ///
    /// - Returns: An event stream; nil for a request that is no turn of a warming, which is to be refused.
    public static func answer(to body: [UInt8]) -> [UInt8]? {
        guard let request = try? JSONParser.parse(body), request["stream"] == true,
            let model = request["model"]?.stringValue, let messages = request["messages"]?.arrayValue
        else { return nil }
        let hasResult = messages.contains { message in
            message["content"]?.arrayValue?.contains { $0["tool_use_id"]?.stringValue == callID } == true
        }
        let block: JSONValue
        let delta: JSONValue
        if hasResult {
            block = ["type": "text", "text": ""]
            delta = ["type": "text_delta", "text": "Ready."]
        } else {
            block = ["type": "tool_use", "id": .string(callID), "name": .string(tool.name), "input": [:]]
            delta = ["type": "input_json_delta", "partial_json": "{}"]
        }
        let message: JSONValue = [
            // The CLI takes two messages of one id for parts of one.
            "id": hasResult ? "msg_warmup_2" : "msg_warmup_1", "type": "message", "role": "assistant",
            "model": .string(model), "content": [], "stop_reason": nil, "stop_sequence": nil,
            "usage": ["input_tokens": 0, "output_tokens": 0],
        ]
        let ending: JSONValue = ["stop_reason": hasResult ? "end_turn" : "tool_use", "stop_sequence": nil]
        let events: [JSONValue] = [
            ["type": "message_start", "message": message],
            ["type": "content_block_start", "index": 0, "content_block": block],
            ["type": "content_block_delta", "index": 0, "delta": delta],
            ["type": "content_block_stop", "index": 0],
            ["type": "message_delta", "delta": ending, "usage": ["output_tokens": 0]],
            ["type": "message_stop"],
        ]
        var out: [UInt8] = []
        for event in events {
            ServerSentEvents.append(event: event["type"]?.stringValue ?? "", to: &out)
            ServerSentEvents.append(data: event, to: &out)
        }
        return out
    }
}
