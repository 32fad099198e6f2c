import Dialects
import Testing

/// How a response continues another.
@Suite struct ResponsesConversationTests {
    private static func decode(_ body: String) throws -> ResponsesRequest {
        try ResponsesRequest.decode(try json(body))
    }

    private static func answer(_ events: [RunEvent], _ reason: StopReason = .endTurn) -> Answer {
        var answer = Answer()
        for event in [.messageStarted(id: "msg_1", model: "m", usage: TokenUsage())] + events { answer.append(event) }
        answer.append(.messageEnded(stopReason: reason, usage: TokenUsage()))
        return answer
    }

    private static let thought: [RunEvent] = [
        .blockStarted(.thinking), .thinking("hm"), .signature("sig"), .blockEnded,
    ]
    private static let call: [RunEvent] = [
        .blockStarted(.toolUse(id: "toolu_1", name: "f")), .toolInput(#"{"a":1.0}"#), .blockEnded,
    ]

    @Test func `thoughts and calls return as they came`() throws {
        let first = try Self.decode(
            #"{"instructions":"I","input":[{"role":"system","content":"S"},{"role":"user","content":"Q"}]}"#)
        let stored = text(first.conversation(with: Self.answer(Self.thought + Self.call, .toolUse)).json)
        let conversation = try #require(Conversation(try json(stored)))
        #expect(text(conversation.json) == stored)
        var second = try Self.decode(
            #"{"instructions":"J","input":[{"type":"function_call_output","call_id":"toolu_1","output":"1"}]}"#)
        second.prepend(conversation)
        try second.finish()
        #expect(second.run.system == ["J", "S"])
        #expect(second.run.turns.map(\.role) == [.user, .assistant, .user])
        #expect(
            try second.run.turns[1].blocks == [
                json(#"{"type":"thinking","thinking":"hm","signature":"sig"}"#),
                json(#"{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1.0}}"#),
            ])
        #expect(second.conversation(with: nil).system == ["S"])
    }

    @Test func `a call without its result is refused`() throws {
        var request = try Self.decode(#"{"input":"next"}"#)
        request.prepend(
            try Self.decode(#"{"input":"Q"}"#).conversation(with: Self.answer(Self.call, .toolUse)))
        let error = #expect(throws: APIError.self) { try request.finish() }
        #expect(error?.parameter == "input")
    }

    @Test func `a response without an answer is continued by joining the user's turns`() throws {
        var request = try Self.decode(#"{"input":"next"}"#)
        request.prepend(try Self.decode(#"{"input":"Q"}"#).conversation(with: nil))
        try request.finish()
        #expect(
            request.run.turns == [
                .init(role: .user, blocks: [RunRequest.Turn.text("Q"), RunRequest.Turn.text("next")])
            ])
    }

    @Test func `an input may be missing only where something is continued, and must end with the user`() throws {
        var request = try Self.decode(#"{"previous_response_id":"resp_1"}"#)
        #expect(request.previousID == "resp_1")
        request.prepend(Conversation(turns: [.init(role: .assistant, blocks: [RunRequest.Turn.text("A")])]))
        let error = #expect(throws: APIError.self) { try request.finish() }
        #expect(error?.parameter == "input")
    }

    @Test(
        arguments: [
            ([.blockStarted(.text), .text(" \n"), .blockEnded], 0), (thought, 0),
            (
                [
                    .blockStarted(.thinking), .thinking("cut"), .blockEnded, .blockStarted(.text), .text("a"),
                    .blockEnded,
                ], 1
            ),
            ([.blockStarted(.toolUse(id: "t", name: "f")), .toolInput(#"{"a":"#), .blockEnded], 0),
            ([.blockStarted(.toolUse(id: "t", name: "f")), .blockEnded], 1), (thought + call, 2),
        ] as [([RunEvent], Int)])
    func `what the API would not take back is left out`(_ events: [RunEvent], _ count: Int) {
        #expect(Self.answer(events, .maxTokens).turnBlocks.count == count)
    }

    @Test(arguments: ["null", "{}", #"{"system":[],"turns":[{"role":"system","content":[]}]}"#])
    func `what is no conversation is not taken for one`(_ body: String) throws {
        #expect(Conversation(try json(body)) == nil)
    }

    @Test func `a caller who keeps the conversation sends thoughts back`() throws {
        let request = try Self.decode(
            #"{"input":"Q","reasoning":{"effort":"low"},"include":["reasoning.encrypted_content"]}"#)
        let answer = Self.answer(
            Self.thought + [.blockStarted(.redactedThinking(data: "xyz")), .blockEnded] + Self.call, .toolUse)
        let reply = ResponsesReply.whole(
            answer, request: request, context: ReplyContext(requestID: "r", created: 1), id: "resp_1", completedAt: 2)
        let items =
            (reply["output"]?.arrayValue ?? []) + [
                try json(#"{"type":"function_call_output","call_id":"toolu_1","output":"1"}"#)
            ]
        var next = try ResponsesRequest.decode(["input": .array([["role": "user", "content": "Q"]] + items)])
        try next.finish()
        #expect(next.run.turns[1].blocks == answer.turnBlocks)
        // Thoughts that nothing follows are dropped.
        var cut = try ResponsesRequest.decode(
            ["input": .array([["role": "user", "content": "Q"], items[0], ["role": "user", "content": "R"]])])
        try cut.finish()
        #expect(cut.run.turns.map(\.role) == [.user])
    }
}
