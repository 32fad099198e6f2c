import Dialects
import Testing

/// Chats that are kept for their next turn.
@Suite struct ChatSessionTests {
    private static let stored = Conversation(
        system: ["stored"],
        turns: [
            .init(role: .user, blocks: [RunRequest.Turn.text("One?")]),
            .init(
                role: .assistant,
                blocks: [["type": "tool_use", "id": "t1", "name": "weather", "input": ["city": "Rome"]]]),
        ])

    private static func chat(_ messages: String, _ members: String = "", wish: SessionWish = .none) throws -> RunRequest
    {
        try ChatCompletionsRequest.decode(
            try json(#"{"model":"sonnet","messages":\#(messages)\#(members)}"#), session: wish)
    }

    private static let user = #"[{"role":"user","content":"Hi"}]"#

    @Test(
        arguments: [
            ("", SessionWish.none, SessionWish.none), (#","store":true"#, .none, .new),
            (#","store":false"#, .none, .none),
            ("", .new, .new), (#","session_id":"s""#, .none, .existing(id: "s", forks: false)),
            (#","session_id":"s","store":true"#, .new, .existing(id: "s", forks: false)),
            (#","session_id":"s""#, .existing(id: "h", forks: false), .existing(id: "s", forks: false)),
            (#","store":true"#, .existing(id: "h", forks: false), .existing(id: "h", forks: false)),
            (#","session_id":null"#, .new, .new),
        ] as [(String, SessionWish, SessionWish)])
    func `a chat completion names its session in the body or the header`(
        _ members: String, _ header: SessionWish, _ wish: SessionWish
    ) throws {
        let request = try Self.chat(Self.user, members, wish: header)
        #expect(request.session == wish)
        #expect(request.ignoredParameters == (members == #","store":false"# ? ["store"] : []))
    }

    @Test func `a message of Anthropic's names its session likewise`() throws {
        let body = try json(
            #"{"model":"sonnet","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"session_id":"s"}"#)
        let request = try MessagesRequest.decode(body, session: .new)
        #expect(request.session == .existing(id: "s", forks: false) && request.ignoredParameters == [])
    }

    @Test(arguments: [#""s""#, #""""#, "5"]) func `a count has no part in a session, and says so`(_ id: String) throws {
        let body = try json(#"{"messages":[{"role":"user","content":"Hi"}],"stream":true,"x":1,"session_id":\#(id)}"#)
        let request = try MessagesRequest.decodeCount(body)
        #expect(request.session == .none && request.ignoredParameters == ["x", "session_id", "stream"])
    }

    @Test(arguments: [
        #"[{"role":"tool","tool_call_id":"t1","content":"sunny"},{"role":"user","content":"So?"}]"#,
        #"[{"role":"user","content":"One?"},{"role":"assistant","content":"other"},{"role":"tool","tool_call_id":"t1","content":"sunny"},{"role":"user","content":"So?"}]"#,
    ])
    func `what follows the last answer is the new turn`(_ messages: String) throws {
        let whole = try Self.chat(messages, #","session_id":"s""#).continuing(Self.stored)
        #expect(whole.turns.prefix(2) == Self.stored.turns[...])
        #expect(
            whole.turns.dropFirst(2).map { text(.array($0.blocks)) } == [
                #"[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"sunny"}]},{"type":"text","text":"So?"}]"#
            ])
        #expect(whole.system == ["stored"])
        // The history calls a tool that the request does not list.
        #expect(whole.tools.map(\.name) == ["weather"] && whole.toolChoice?["type"] == "none")
    }

    @Test func `a system prompt holds until another one is sent`() throws {
        let messages =
            #"[{"role":"system","content":"new"},{"role":"tool","tool_call_id":"t1","content":"sunny"}]"#
        let whole = try Self.chat(messages, #","session_id":"s""#).continuing(Self.stored)
        #expect(whole.system == ["new"])
        var answer = Answer()
        for event: RunEvent in [.blockStarted(.text), .text("Warm."), .blockEnded] { answer.append(event) }
        let next = whole.conversation(with: answer)
        #expect(next.system == ["new"] && next.turns.count == 4)
        #expect(next.turns.last == .init(role: .assistant, blocks: [RunRequest.Turn.text("Warm.")]))
        #expect(Conversation(next.json) == next)
    }

    @Test func `a call without its result is refused once the session is known`() throws {
        let request = try Self.chat(Self.user, #","session_id":"s""#)
        let error = try #require(throws: APIError.self) { try request.continuing(Self.stored) }
        #expect(error.kind == .invalidRequest && error.message.contains("t1"))
        #expect(throws: APIError.self) {
            try Self.chat(#"[{"role":"tool","tool_call_id":"t1","content":"sunny"},{"role":"user","content":"x"}]"#)
        }
    }

    @Test func `replies of chat completions name the session`() throws {
        let context = ReplyContext(requestID: "r", created: 1, sessionID: "s")
        var answer = Answer()
        var stream = ChatCompletionsStream(context: context, options: ReplyOptions())
        var out: [UInt8] = []
        let events: [RunEvent] = [
            .messageStarted(id: "msg_1", model: "m", usage: TokenUsage()), .blockStarted(.text), .text("x"),
            .blockEnded,
            .messageEnded(stopReason: .endTurn, usage: TokenUsage()), .answered,
        ]
        for event in events {
            answer.append(event)
            stream.encode(event, into: &out)
        }
        let whole = ChatCompletionsReply.whole([answer], options: ReplyOptions(), context: context)
        #expect(whole["session_id"] == "s")
        let chunks = String(decoding: out, as: UTF8.self).split(separator: "\n").filter { $0.hasPrefix("data: {") }
        #expect(chunks.count == 3)
        for chunk in chunks { #expect(try json(String(chunk.dropFirst(6)))["session_id"] == "s") }
    }
}
