import Testing

@testable import Dialects

@Suite struct RunRequestLiveTests {
    private static func text(_ text: String) -> JSONValue { RunRequest.Turn.text(text) }

    private static func request(_ change: (inout RunRequest) -> Void = { _ in }) -> RunRequest {
        var request = RunRequest(turns: [
            .init(role: .user, blocks: [text("Hi")]), .init(role: .assistant, blocks: [text("Yes.")]),
            .init(role: .user, blocks: [text("Go on")]),
        ])
        change(&request)
        return request
    }

    private static func withResults(_ blocks: [JSONValue]) -> RunRequest {
        request { request in
            request.turns[1].blocks += [
                ["type": "tool_use", "id": "a", "name": "get", "input": [:]],
                ["type": "tool_use", "id": "b", "name": "get", "input": [:]],
            ]
            request.turns[2].blocks = blocks
        }
    }

    private static func result(_ id: String, _ content: JSONValue, _ extra: JSONObject = JSONObject()) -> JSONValue {
        .object(
            JSONObject(
                [("type", "tool_result"), ("tool_use_id", .string(id)), ("content", content)].map {
                    .init(key: $0.0, value: $0.1)
                } + extra.members))
    }

    @Test func `a conversation is what comes before its newest turn`() throws {
        let request = Self.request()
        let (history, new) = try #require(request.liveSplit)
        #expect(Array(history) == Array(request.turns[..<2]))
        #expect(new == request.turns[2])
    }

    @Test(
        arguments: [
            { $0.turns.removeFirst(2) }, { $0.turns = [] }, { $0.turns.removeLast() }, { $0.choiceCount = 2 },
            { $0.countsTokens = true }, { $0.outputSchema = [:] },
            { $0.hostTools = [ToolRule("Read")].compactMap { $0 } },
            { $0.profile = .agent(AgentProfile(tools: [], allowRules: [], workingDirectory: nil)) },
        ] as [@Sendable (inout RunRequest) -> Void])
    func `other requests continue nothing`(_ change: @Sendable (inout RunRequest) -> Void) {
        #expect(Self.request(change).liveSplit == nil)
    }

    @Test(
        arguments: [
            { $0.outputSchema = [:] }, { $0.usesClaudeCodePrompt = true }, { $0.countsTokens = true },
            { $0.hostTools = [ToolRule("Read")].compactMap { $0 } },
            { $0.profile = .agent(AgentProfile(tools: [], allowRules: [], workingDirectory: nil)) },
        ] as [@Sendable (inout RunRequest) -> Void])
    func `what a process must be started with is not for a warm one`(_ change: @Sendable (inout RunRequest) -> Void) {
        #expect(Self.request().fitsWarmProcess)
        #expect(!Self.request(change).fitsWarmProcess)
    }

    private static let picture: JSONValue = [
        "type": "image", "source": ["type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="],
    ]

    @Test(
        arguments: [
            ([result("a", "1"), result("b", [text("2"), text("3")])], true),
            (
                [
                    result("a", .string(String(repeating: "x", count: 45_000))),
                    result("b", .string(String(repeating: "é", count: 45_000))),
                ], true
            ),
            ([result("a", .string(String(repeating: "x", count: 45_001))), result("b", "2")], false),
            // Counted as the CLI counts: an emoji is two.
            ([result("a", .string(String(repeating: "😀", count: 22_501))), result("b", "2")], false),
            (
                [
                    result("a", .array(Array(repeating: text(String(repeating: "x", count: 1_000)), count: 46))),
                    result("b", "2"),
                ], false
            ),
            ([result("b", "2"), result("a", "1")], false), ([result("a", "1")], false),
            ([result("a", "1"), result("a", "1")], false), ([result("a", "1"), result("b", "2"), text("and")], false),
            ([result("a", "1"), result("b", "")], false), ([result("a", "1"), result("b", [])], false),
            ([result("a", "1"), result("b", nil)], false), ([result("a", "1"), result("b", [text(" \n")])], false),
            ([result("a", "1"), result("b", [picture])], false),
            ([result("a", "1"), result("b", [["type": "text", "text": "2", "citations": []]])], false),
            ([result("a", "1"), result("b", "2", JSONObject([("is_error", true)]))], false),
            ([result("a", "1"), result("b", "2", JSONObject([("is_error", false)]))], true), ([text("Go on")], false),
            ([], false),
        ] as [([JSONValue], Bool)])
    func `results go on in the process where the CLI hands them on as they are`(
        _ blocks: [JSONValue], _ canResume: Bool
    ) {
        let request = Self.withResults(blocks)
        #expect(request.canResume(openCalls: ["a", "b"]) == canResume)
        #expect((request.liveSplit != nil) == canResume)
    }

    @Test func `results that no one waits for continue nothing`() {
        #expect(!Self.withResults([Self.result("a", "1")]).canResume(openCalls: []))
        #expect(Self.request().canResume(openCalls: []))
        #expect(!Self.request().canResume(openCalls: ["a"]))
    }
}
