import Testing

@testable import Dialects

extension ConversationKey {
    /// A whole key.
    static func bytes(
        request: RunRequest, model: String?, client: String?, turns: some Sequence<RunRequest.Turn>
    ) -> [UInt8] {
        parameters(of: request, model: model, client: client) + turns.flatMap { bytes(of: $0) }
    }
}

@Suite struct ConversationKeyTests {
    private static let base: RunRequest = {
        var request = RunRequest(
            system: ["A", "B"],
            turns: [
                .init(role: .user, blocks: [RunRequest.Turn.text("Hi")]),
                .init(role: .assistant, blocks: [RunRequest.Turn.text("Yes.")]),
            ], maxOutputTokens: 9)
        request.tools = [
            .init(name: "t", definition: JSONObject([("name", "t"), ("input_schema", ["a": 1.0, "b": 2])]))
        ]
        request.stopSequences = ["X"]
        request.sampling = JSONObject([("temperature", .number("0.5"))])
        return request
    }()

    private static func bytes(_ request: RunRequest, model: String? = "sonnet", client: String? = "c") -> [UInt8] {
        ConversationKey.bytes(request: request, model: model, client: client, turns: request.turns)
    }

    private static func changed(_ change: (inout RunRequest) -> Void) -> RunRequest {
        var request = base
        change(&request)
        return request
    }

    @Test(
        arguments: [
            { $0.system = ["A\n\nB"] }, { $0.system = ["B", "A"] }, { $0.system = [] }, { $0.maxOutputTokens = nil },
            { $0.maxOutputTokens = 10 }, { $0.tools = [] }, { $0.tools[0].definition["description"] = "d" },
            { $0.tools[0].definition["input_schema"] = ["b": 2, "a": 1.0] },
            { $0.tools[0].definition["input_schema"] = ["a": 1, "b": 2] },
            { $0.toolChoice = JSONObject([("type", "any")]) },
            { $0.thinking = .off }, { $0.thinking = .summarized }, { $0.thinking = .native("off") },
            { $0.effort = "low" },
            { $0.stopSequences = [] }, { $0.stopSequences = ["X", ""] }, { $0.sampling = JSONObject() },
            { $0.sampling = JSONObject([("temperature", .number("0.50"))]) }, { $0.turns.removeLast() },
            { $0.turns[0].blocks.append(RunRequest.Turn.text("")) },
            { $0.turns[1].blocks = [RunRequest.Turn.text("Yes")] },
            { $0.turns[1].role = .user },
        ] as [@Sendable (inout RunRequest) -> Void])
    func `whatever the model is told counts`(_ change: @Sendable (inout RunRequest) -> Void) {
        #expect(Self.bytes(Self.changed(change)) != Self.bytes(Self.base))
    }

    @Test func `whose it is and which model counts`() {
        let keys = [
            Self.bytes(Self.base), Self.bytes(Self.base, client: nil), Self.bytes(Self.base, client: "d"),
            Self.bytes(Self.base, model: nil), Self.bytes(Self.base, model: "c", client: "sonnet"),
        ]
        #expect(Set(keys).count == keys.count)
    }

    @Test(
        arguments: [
            { $0.isStreaming = true }, { $0.reply.includesUsage = true }, { $0.model = "other name of it" },
            { $0.timeout = .seconds(1) }, { $0.ignoredParameters = ["user"] }, { $0.session = .new },
        ] as [@Sendable (inout RunRequest) -> Void])
    func `what the model is not told does not`(_ change: @Sendable (inout RunRequest) -> Void) {
        #expect(Self.bytes(Self.changed(change)) == Self.bytes(Self.base))
    }

    @Test func `a turn's blocks are told apart from others that have the same text`() {
        let one = Self.changed { $0.turns[0].blocks = [RunRequest.Turn.text("a"), RunRequest.Turn.text("b")] }
        let two = Self.changed { $0.turns[0].blocks = [RunRequest.Turn.text("a\"},{\"text\":\"b")] }
        #expect(Self.bytes(one) != Self.bytes(two))
    }

    @Test(arguments: [
        (#"{"type":"text","text":"a"}"#, #"{"text":"a","type":"text","citations":null}"#, true),
        (#"{"type":"text","text":"a"}"#, #"{"type":"text","text":"a","citations":[]}"#, false),
        (
            #"{"type":"tool_result","tool_use_id":"x","content":"a"}"#,
            #"{"content":[{"text":"a","type":"text"}],"tool_use_id":"x","type":"tool_result"}"#, true
        ),
        (
            #"{"type":"tool_result","tool_use_id":"x","content":"a"}"#,
            #"{"type":"tool_result","tool_use_id":"x","content":[{"type":"text","text":"a"},{"type":"text","text":""}]}"#,
            false
        ),
        (
            #"{"type":"tool_use","id":"x","name":"t","input":{"a":1,"b":null}}"#,
            #"{"input":{"a":1,"b":null},"id":"x","name":"t","type":"tool_use"}"#, true
        ),
        (
            #"{"type":"tool_use","id":"x","name":"t","input":{"a":1,"b":null}}"#,
            #"{"type":"tool_use","id":"x","name":"t","input":{"b":null,"a":1}}"#, false
        ),
        (
            #"{"type":"tool_use","id":"x","name":"t","input":{"a":1,"b":null}}"#,
            #"{"type":"tool_use","id":"x","name":"t","input":{"a":1}}"#, false
        ),
    ])
    func `clients may write a block in other ways`(_ left: String, _ right: String, _ areEqual: Bool) throws {
        let keys = try [left, right].map { block in
            let block = try json(block)
            return Self.bytes(Self.changed { $0.turns[0].blocks = [block] })
        }
        #expect((keys[0] == keys[1]) == areEqual)
    }

    /// What a client sends back is what it was given, in each of the two APIs.
    @Test func `an answer that comes back finds its conversation`() throws {
        var answer = Answer()
        for event in [
            .messageStarted(id: "m", model: "m", usage: TokenUsage()), .blockStarted(.text), .text("I "),
            .text("look."),
            .blockEnded, .blockStarted(.toolUse(id: "toolu_1", name: "t")), .toolInput(#"{"b": 1.50, "#),
            .toolInput(#""a":"é"}"#),
            .blockEnded, .messageEnded(stopReason: .toolUse, usage: TokenUsage()),
        ] as [RunEvent] {
            answer.append(event)
        }
        let tools: JSONValue = [["name": "t", "input_schema": ["type": "object"]]]
        let first: JSONValue = ["role": "user", "content": "Hi"]
        let asked = try MessagesRequest.decode(["model": "m", "max_tokens": 9, "tools": tools, "messages": [first]])
        let content = try #require(MessagesReply.whole(answer)["content"])
        let result: JSONValue = ["type": "tool_result", "tool_use_id": "toolu_1", "content": "42"]
        let next = try MessagesRequest.decode([
            "model": "m", "max_tokens": 9, "tools": tools, "stream": true,
            "messages": [first, ["role": "assistant", "content": content], ["role": "user", "content": [result]]],
        ])
        #expect(try Self.key(asked, answer) == Self.key(next))

        let functions: JSONValue = [["type": "function", "function": ["name": "t", "parameters": ["type": "object"]]]]
        let chat = try ChatCompletionsRequest.decode(["model": "m", "tools": functions, "messages": [first]])
        let context = ReplyContext(requestID: "r", created: 1)
        let whole = ChatCompletionsReply.whole([answer], options: chat.reply, context: context)
        let message = try #require(whole["choices"]?.arrayValue?.first?["message"])
        let nextChat = try ChatCompletionsRequest.decode([
            "model": "m", "tools": functions,
            "messages": [first, message, ["role": "tool", "tool_call_id": "toolu_1", "content": "42"]],
        ])
        #expect(try Self.key(chat, answer) == Self.key(nextChat))
    }

    private static func key(_ request: RunRequest, _ answer: Answer) throws -> [UInt8] {
        ConversationKey.bytes(request: request, model: "m", client: nil, turns: request.turns(with: answer))
    }

    private static func key(_ request: RunRequest) throws -> [UInt8] {
        ConversationKey.bytes(request: request, model: "m", client: nil, turns: try #require(request.liveSplit).history)
    }
}
