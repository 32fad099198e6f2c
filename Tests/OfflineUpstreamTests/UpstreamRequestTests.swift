import Dialects
import Testing

@testable import OfflineUpstream

@Suite struct UpstreamRequestTests {
    private static let prompts: [(JSONValue, String)] = [
        ([["role": "user", "content": "hi"]], "hi"),
        (
            [
                ["role": "user", "content": "old"], ["role": "assistant", "content": "a"],
                ["role": "user", "content": "new"],
            ], "new"
        ),
        ([["role": "user", "content": "hi"], ["role": "system", "content": "[[echo]]"]], "hi"),
        (
            [
                [
                    "role": "user",
                    "content": [
                        ["type": "text", "text": "<system-reminder>x</system-reminder>"],
                        ["type": "image", "source": ["type": "url", "url": "https://example.com/"]],
                        ["type": "text", "text": "a"], ["type": "text", "text": "b"],
                    ],
                ]
            ], "ab"
        ),
        (
            [
                ["role": "user", "content": "[[tool=Bash {}]]"],
                ["role": "assistant", "content": [["type": "tool_use", "id": "a", "name": "Bash", "input": [:]]]],
                [
                    "role": "user",
                    "content": [["type": "tool_result", "tool_use_id": "a", "content": "[[tool=Bash {}]]"]],
                ],
            ], ""
        ),
        ([["role": "user", "content": "hi"], ["role": "assistant", "content": "a"]], "hi"),
    ]

    @Test(arguments: prompts)
    func `the prompt is the text of the last user message`(messages: JSONValue, prompt: String) throws {
        #expect(try UpstreamRequest(Support.body(messages: messages), needsMaxTokens: true).prompt == prompt)
    }

    private static let image: JSONValue = [
        "type": "image", "source": ["type": "base64", "media_type": "image/png", "data": "AAAA"],
    ]
    private static let tool: JSONValue = [
        "name": "12345678", "description": "1234", "input_schema": ["type": "object", "title": "1234"],
    ]

    /// Content, other members of the body, and the count.
    private static let counts: [(JSONValue, JSONValue, Int)] = [
        ("12345678", [:], 2), ("1", [:], 1), ([["type": "text", "text": "12345678"]], [:], 2),
        ("1234", ["system": [["type": "text", "text": "1234"]]], 2), ("1234", ["system": "12345678"], 3),
        ("1234", ["tools": [tool]], 5), ([image], [:], 1500), ([image, image], ["tools": [tool]], 3004),
        ([["type": "image", "source": ["type": "url", "url": "https://example.com/"]]], [:], 1500),
        ([["type": "document", "source": ["type": "text", "media_type": "text/plain", "data": "1234"]]], [:], 3),
    ]

    @Test(arguments: counts)
    func `tokens are a quarter of the bytes of all text`(content: JSONValue, members: JSONValue, count: Int) throws {
        let body = Support.body(messages: [["role": "user", "content": content]], members)
        #expect(try UpstreamRequest(body, needsMaxTokens: false).inputTokens == count)
    }

    @Test(arguments: [
        ("[]", 400, "model: Field required"), (#"{"model":"m"}"#, 400, "messages: Field required"),
        (#"{"model":"m","messages":[]}"#, 400, "messages: at least one message is required"),
        (#"{"model":"m","messages":[{}]}"#, 400, "max_tokens: Field required"),
        (#"{"model":"nope-1","max_tokens":1,"messages":[{}]}"#, 404, "model: nope-1"),
        (#"{"model":"unknown-model","max_tokens":1,"messages":[{}]}"#, 404, "model: unknown-model"),
    ])
    func `a bad request is refused`(body: String, status: Int, message: String) throws {
        let json = try JSONParser.parse(Array(body.utf8))
        #expect(throws: UpstreamError(status: status, message: message)) {
            try UpstreamRequest(json, needsMaxTokens: true)
        }
    }

    @Test func `strikes are counted by session and directive, and forgotten after the last`() {
        let counter = StrikeCounter()
        let twice = Directives.Recurrence(times: 2, spelling: "error=429*2")
        let once = Directives.Recurrence(times: 1, spelling: "cut=3*1")
        let always = Directives.Recurrence(times: nil, spelling: "error=500")
        #expect((0..<4).map { _ in counter.strikes(twice, session: "a") } == [true, true, false, true])
        #expect((0..<3).map { _ in counter.strikes(twice, session: "b") } == [true, true, false])
        #expect((0..<2).map { _ in counter.strikes(once, session: "a") } == [true, false])
        #expect((0..<3).map { _ in counter.strikes(always, session: "a") } == [true, true, true])
    }
}
