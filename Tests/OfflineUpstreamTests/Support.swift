import Dialects
import Testing

@testable import OfflineUpstream

/// Makes requests and answers for the tests.
enum Support {
    /// Parses JSON that a test has written.
    static func json(_ text: String) throws -> JSONValue { try JSONParser.parse(Array(text.utf8)) }

    /// A request's body: a prompt, or messages, and other members on top.
    static func body(
        _ prompt: String = "hi", messages: JSONValue? = nil, _ members: JSONValue = [:]
    ) -> JSONValue {
        var body = JSONObject([
            .init(key: "model", value: "m"), .init(key: "max_tokens", value: 1024),
            .init(key: "messages", value: messages ?? [["role": "user", "content": .string(prompt)]]),
        ])
        for member in members.objectValue?.members ?? [] { body[member.key] = member.value }
        return .object(body)
    }

    /// The answer that is planned for a body, as the responder plans it.
    static func plan(_ body: JSONValue) throws -> AnswerPlan {
        let request = try UpstreamRequest(body, needsMaxTokens: true)
        return AnswerPlan(request, Directives(turn: request.turn), unique: "1")
    }

    /// The answer to a prompt alone.
    static func plan(_ prompt: String, _ members: JSONValue = [:]) throws -> AnswerPlan {
        try plan(body(prompt, members))
    }

    /// All that a plan streams, and the steps of it.
    static func stream(_ plan: AnswerPlan) -> (steps: [AnswerStream.Step], text: String) {
        var stream = AnswerStream(plan, requestID: "req_1")
        var out: [UInt8] = []
        var steps: [AnswerStream.Step] = []
        while true {
            let step = stream.next(into: &out)
            steps.append(step)
            switch step {
            case .proceed, .pause: continue
            case .end, .stall: return (steps, String(decoding: out, as: UTF8.self))
            }
        }
    }

    /// The data of each event of a stream.
    static func events(_ text: String) throws -> [JSONValue] {
        try text.split(separator: "\n").filter { $0.hasPrefix("data: ") }.map { try json(String($0.dropFirst(6))) }
    }

    /// The content in short: `think`, `redacted`, `text=…`, `cite=…` and `NAME{input}`, parted by spaces.
    static func summary(_ message: JSONValue) -> String {
        (message["content"]?.arrayValue ?? []).map { block in
            let text = block["text"]?.stringValue ?? ""
            switch block["type"]?.stringValue {
            case "thinking": return "think=\(block["thinking"]?.stringValue ?? "")"
            case "redacted_thinking": return "redacted"
            case "text" where text.contains("canned"): return "canned"
            case "text": return (block["citations"] == nil ? "text=" : "cite=") + text
            default:
                let input = String(decoding: JSONWriter.bytes(block["input"] ?? nil), as: UTF8.self)
                return (block["name"]?.stringValue ?? "?") + input
            }
        }.joined(separator: " ")
    }
}
