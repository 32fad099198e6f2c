import Dialects
import Testing

/// Conversations beyond plain text: tools, structured answers, stop sequences, thinking, counting.
@Suite struct ToolConversationTests {
    private static let initialized =
        #"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{"claude_code_version":"2.1.330"}}}"#

    private static func acknowledged(_ id: String) -> String {
        #"{"type":"control_response","response":{"subtype":"success","request_id":"\#(id)"}}"#
    }

    private static func event(_ json: String) -> String { #"{"type":"stream_event","event":\#(json)}"# }

    private static let messageStart = event(
        #"{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":3}}}"#)

    private static func begin(_ block: String) -> String {
        event(#"{"type":"content_block_start","index":0,"content_block":\#(block)}"#)
    }

    private static func delta(_ delta: String) -> String { event(#"{"type":"content_block_delta","delta":\#(delta)}"#) }

    private static func words(_ words: String) -> String {
        delta(#"{"type":"text_delta","text":\#(text(.string(words)))}"#)
    }

    private static func input(_ json: String) -> String {
        delta(#"{"type":"input_json_delta","partial_json":\#(text(.string(json)))}"#)
    }

    private static let textBlock = begin(#"{"type":"text","text":""}"#)
    private static let blockStop = event(#"{"type":"content_block_stop","index":0}"#)

    private static func call(_ name: String, _ id: String = "toolu_1") -> String {
        begin(#"{"type":"tool_use","id":"\#(id)","name":"\#(name)","input":{}}"#)
    }

    private static func end(_ reason: String) -> [String] {
        [
            event(#"{"type":"message_delta","delta":{"stop_reason":"\#(reason)"},"usage":{"output_tokens":2}}"#),
            event(#"{"type":"message_stop"}"#),
        ]
    }

    private static func mcp(_ id: Int, _ method: String) -> String {
        #"{"type":"control_request","request_id":"r\#(id)","request":{"subtype":"mcp_message","server_name":"client","message":{"jsonrpc":"2.0","id":\#(id),"method":"\#(method)"}}}"#
    }

    /// A conversation with what it did so far.
    private struct Talk {
        var conversation: ClaudeConversation
        var written: [String] = []
        var events: [RunEvent] = []
        var hasEnded = false

        init(_ request: RunRequest, model: String? = nil, resolvedModel: String? = nil) {
            conversation = ClaudeConversation(request, model: model, resolvedModel: resolvedModel)
            take(conversation.start())
        }

        mutating func take(_ actions: [ClaudeConversation.Action]) {
            for action in actions {
                switch action {
                case .write(let bytes):
                    written += String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { String($0) }
                case .event(let event): events.append(event)
                case .end: hasEnded = true
                }
            }
        }

        mutating func say(_ lines: [String]) {
            for line in lines {
                let bytes = Array(line.utf8)
                take(conversation.receive(bytes, in: 0..<bytes.count))
            }
        }

        var failure: APIError? {
            for case .failed(let error) in events { return error }
            return nil
        }

        var answer: Answer {
            events.reduce(into: Answer()) { $0.append($1) }
        }
    }

    private static func request(_ change: (inout RunRequest) -> Void) -> RunRequest {
        var request = RunRequest(turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
        change(&request)
        return request
    }

    private static let withTools = request { request in
        request.tools = ["get", "Bash"].map { name in
            RunRequest.Tool(
                name: name,
                definition: JSONObject([("name", .string(name)), ("input_schema", ["type": "object"])]))
        }
    }
    private static let listed = [initialized, acknowledged("settings"), mcp(1, "tools/list")]

    @Test(arguments: ["no JSON", #"{"type":"system","subtype":"init","tools":[]}"#, "", "long"])
    func `what goes wrong behind the answer is not told`(_ line: String) {
        var talk = Talk(RunRequest(turns: [RunRequest.Turn(role: .user, blocks: [RunRequest.Turn.text("x")])]))
        talk.say([Self.initialized, Self.messageStart, Self.textBlock, Self.words("x"), Self.blockStop])
        talk.say(Self.end("end_turn"))
        #expect(talk.events.last == .answered)
        switch line {
        case "long": talk.take(talk.conversation.lineTooLong(limitBytes: 1))
        case "": talk.take(talk.conversation.outputEnded(cause: "x"))
        default: talk.say([line])
        }
        #expect(talk.failure == nil)
    }

    // MARK: Tools

    @Test func `nothing is asked before the CLI knows the tools`() {
        var talk = Talk(Self.withTools)
        #expect(talk.written[0].contains(#""sdkMcpServers":["client"]"#))
        talk.say([Self.initialized, Self.acknowledged("settings"), Self.mcp(0, "initialize")])
        #expect(talk.written.count == 3)
        talk.say([Self.mcp(1, "tools/list")])
        #expect(talk.written.count == 5)
        #expect(talk.written[3].contains(#""request_id":"r1""#))
        #expect(talk.written[4].contains(#""type":"user""#))
    }

    @Test func `the tools may be asked for before the settings are acknowledged`() {
        var talk = Talk(Self.withTools)
        talk.say([Self.initialized, Self.mcp(1, "tools/list")])
        #expect(talk.written.count == 3)
        talk.say([Self.acknowledged("settings")])
        #expect(talk.written.count == 4)
        #expect(talk.written[3].contains(#""type":"user""#))
    }

    @Test func `a call ends the run, and is left unanswered`() {
        var talk = Talk(Self.withTools)
        talk.say(Self.listed)
        let before = talk.written.count
        talk.say([Self.mcp(2, "tools/call")])
        #expect(talk.written.count == before)
        talk.say(
            [
                Self.messageStart, Self.textBlock, Self.words("I look."), Self.blockStop, Self.call("get"),
                Self.input("{\"a\":"), Self.input("1}"), Self.blockStop, Self.call("mcp__client__Bash", "toolu_2"),
                Self.blockStop,
            ] + Self.end("tool_use"))
        #expect(talk.hasEnded)
        #expect(talk.conversation.isCut)
        #expect(
            talk.events == [
                .messageStarted(id: "msg_1", model: "m", usage: TokenUsage(input: 3)), .blockStarted(.text),
                .text("I look."), .blockEnded, .blockStarted(.toolUse(id: "toolu_1", name: "get")),
                .toolInput("{\"a\":"), .toolInput("1}"), .blockEnded,
                .blockStarted(.toolUse(id: "toolu_2", name: "Bash")), .blockEnded,
                .messageEnded(stopReason: .toolUse, usage: TokenUsage(input: 3, output: 2)), .answered,
            ])
        #expect(talk.answer.toolCalls.map(\.input) == ["{\"a\":1}", "{}"])
    }

    @Test func `the history names the model and the CLI's names of tools`() {
        let call: JSONValue = ["type": "tool_use", "id": "t", "name": "Bash", "input": ["a": 1]]
        let thought: JSONValue = ["type": "thinking", "thinking": "x", "signature": "s"]
        let request = Self.request { request in
            request.turns += [
                .init(role: .assistant, blocks: [thought, call]),
                .init(role: .user, blocks: [["type": "tool_result", "tool_use_id": "t"]]),
            ]
        }
        for (resolved, expected) in [("claude-x", "claude-x"), (nil, "sonnet")] as [(String?, String)] {
            var talk = Talk(request, model: "sonnet", resolvedModel: resolved)
            talk.say([
                Self.initialized, Self.acknowledged("settings"),
                #"{"type":"result","subtype":"success","is_error":false,"num_turns":0,"result":""}"#,
            ])
            #expect(talk.written.count == 5)
            #expect(
                talk.written[3]
                    == #"{"type":"assistant","message":{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"s"},{"type":"tool_use","id":"t","name":"mcp__client__Bash","input":{"a":1}}],"model":"\#(expected)"},"parent_tool_use_id":null,"session_id":""}"#
            )
        }
    }

    // MARK: Settings

    @Test(
        arguments: [
            (.off, #""env":{"CLAUDE_CODE_DISABLE_THINKING":"1"}"#),
            (
                .native(["type": "adaptive"]),
                #""env":{"CLAUDE_CODE_EXTRA_BODY":"{\"thinking\":{\"type\":\"adaptive\"}}"}"#
            ),
        ] as [(RunRequest.Thinking, String)])
    func `thinking is a setting`(_ thinking: RunRequest.Thinking, _ setting: String) {
        var talk = Talk(Self.request { $0.thinking = thinking })
        talk.say([Self.initialized])
        #expect(talk.written.count == 2)
        #expect(talk.written[1].contains(setting))
    }

    @Test func `summarized thinking is asked for on its own line, and both are awaited`() {
        let request = Self.request { request in
            request.thinking = .summarized
            request.effort = "high"
        }
        for order in [["settings", "thinking"], ["thinking", "settings"]] {
            var talk = Talk(request)
            talk.say([Self.initialized])
            #expect(
                talk.written.dropFirst() == [
                    #"{"type":"control_request","request_id":"settings","request":{"subtype":"apply_flag_settings","settings":{"effortLevel":"high"}}}"#,
                    #"{"type":"control_request","request_id":"thinking","request":{"subtype":"set_max_thinking_tokens","max_thinking_tokens":null,"thinking_display":"summarized"}}"#,
                ])
            talk.say([Self.acknowledged(order[0])])
            #expect(talk.written.count == 3)
            talk.say([Self.acknowledged(order[1])])
            #expect(talk.written.count == 4)
        }
    }

    @Test func `a thought has its signature`() {
        var talk = Talk(Self.request { _ in })
        talk.say(
            [
                Self.initialized, Self.messageStart, Self.begin(#"{"type":"thinking","thinking":""}"#),
                Self.delta(#"{"type":"thinking_delta","thinking":"Hm."}"#),
                Self.delta(#"{"type":"signature_delta","signature":"sig"}"#), Self.blockStop,
                Self.begin(#"{"type":"redacted_thinking","data":"secret"}"#), Self.blockStop, Self.textBlock,
                Self.words("Done."), Self.blockStop,
            ] + Self.end("end_turn"))
        #expect(
            talk.answer.blocks.map(\.json) == [
                ["type": "thinking", "thinking": "Hm.", "signature": "sig"],
                ["type": "redacted_thinking", "data": "secret"], RunRequest.Turn.text("Done."),
            ])
        #expect(talk.answer.text == "Done.")
        #expect(talk.answer.thinking == "Hm.")
    }

    // MARK: Stop sequences

    @Test func `a stop sequence ends the process at once`() {
        var talk = Talk(Self.request { $0.stopSequences = ["END"] })
        talk.say([
            Self.initialized, Self.acknowledged("settings"), Self.messageStart, Self.textBlock, Self.words("one E"),
        ])
        #expect(!talk.hasEnded)
        talk.say([Self.words("ND two"), Self.words("three")])
        #expect(talk.hasEnded)
        #expect(talk.conversation.isCut)
        #expect(talk.answer.text == "one ")
        #expect(talk.answer.stopReason == .stopSequence("END"))
        #expect(talk.answer.usage.output > 0)
        #expect(talk.events.last == .answered)
    }

    @Test func `what looked like a stop sequence is the answer's after all`() {
        var talk = Talk(Self.request { $0.stopSequences = ["END"] })
        talk.say(
            [
                Self.initialized, Self.acknowledged("settings"), Self.messageStart, Self.textBlock,
                Self.words("one EN"),
                Self.blockStop,
            ] + Self.end("end_turn"))
        #expect(talk.answer.text == "one EN")
        #expect(talk.answer.stopReason == .endTurn)
        #expect(!talk.conversation.isCut)
    }

    @Test func `a stop sequence that the API found is told`() {
        var talk = Talk(Self.request { $0.stopSequences = ["END"] })
        talk.say([
            Self.initialized, Self.acknowledged("settings"), Self.messageStart, Self.textBlock, Self.words("one"),
            Self.blockStop,
            Self.event(
                #"{"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"END"},"usage":{}}"#),
            Self.event(#"{"type":"message_stop"}"#),
        ])
        #expect(talk.answer.stopReason == .stopSequence("END"))
        #expect(talk.events.last == .answered)
    }

    // MARK: Structured answers

    private static let structured = request { request in
        request.outputSchema = ["properties": ["a": [:]], "x-mine": 1]
        request.outputSchemaParameter = "response_format.json_schema.schema"
        request.stopSequences = ["a"]
        request.isStreaming = true
    }
    private static let begun =
        #"{"type":"system","subtype":"init","session_id":"s","model":"m","tools":["StructuredOutput"]}"#

    private static func result(_ members: String) -> String {
        #"{"type":"result","num_turns":2,"usage":{"input_tokens":9,"output_tokens":4},\#(members)}"#
    }

    private static func structuredTalk() -> Talk {
        var talk = Talk(structured)
        talk.say([initialized, acknowledged("settings"), begun])
        return talk
    }

    @Test func `a structured answer is sent when the CLI has found it good`() {
        var talk = Self.structuredTalk()
        #expect(talk.written[0].contains(#""jsonSchema":{"properties":{"a":{}},"type":"object"}"#))
        // The first call does not fit: the model is told so, and tries again.
        for input in ["{\"b\":1}", "{ \"a\": 1.50 }"] {
            talk.say(
                [Self.messageStart, Self.call("StructuredOutput"), Self.input(input), Self.blockStop]
                    + Self.end("tool_use"))
            #expect(talk.events.count == 1)
        }
        talk.say([Self.result(#""subtype":"success","is_error":false,"structured_output":{"a":1.5}"#)])
        #expect(talk.hasEnded)
        #expect(talk.answer.text == "{ \"a\": 1.50 }")
        #expect(talk.answer.stopReason == .endTurn)
        #expect(talk.answer.usage == TokenUsage(input: 9, output: 4))
        #expect(talk.answer.toolCalls.isEmpty)
    }

    @Test func `a structured answer without a stream is the CLI's copy`() {
        var talk = Self.structuredTalk()
        talk.say([Self.result(#""subtype":"success","is_error":false,"structured_output":{"a":1.5}"#)])
        #expect(talk.answer.text == "{\"a\":1.5}")
        #expect(talk.events.contains(.answered))
    }

    @Test(arguments: [
        #""subtype":"error_max_structured_output_retries","is_error":true"#,
        #""subtype":"success","is_error":false,"result":"Only words.""#,
        #""subtype":"success","is_error":false,"structured_output":null"#,
    ])
    func `a model that gives no fitting answer is a failure`(_ members: String) {
        var talk = Self.structuredTalk()
        talk.say([Self.messageStart, Self.textBlock, Self.words("Only words."), Self.blockStop] + Self.end("end_turn"))
        #expect(talk.events.count == 1)
        talk.say([Self.result(members)])
        #expect(talk.failure?.kind == .upstream)
        #expect(talk.failure?.isTransient == false)
        #expect(talk.answer.text.isEmpty)
    }

    @Test(arguments: ["[]", #"["Read"]"#, "null"])
    func `a schema that the CLI can't use is refused before the model is asked`(_ tools: String) {
        var talk = Talk(Self.structured)
        talk.say([
            Self.initialized, Self.acknowledged("settings"), #"{"type":"system","subtype":"init","tools":\#(tools)}"#,
        ])
        #expect(talk.failure?.kind == .invalidRequest)
        #expect(talk.failure?.parameter == "response_format.json_schema.schema")
        #expect(talk.hasEnded)
    }

    @Test func `a structured answer that is cut short is what there is of it`() {
        var talk = Self.structuredTalk()
        talk.say(
            [Self.messageStart, Self.call("StructuredOutput"), Self.input("{\"a\":"), Self.blockStop]
                + Self.end("max_tokens"))
        #expect(talk.hasEnded)
        #expect(talk.answer.text == "{\"a\":")
        #expect(talk.answer.stopReason == .maxTokens)
    }

    @Test func `a refusal in place of a structured answer is shown`() {
        var talk = Self.structuredTalk()
        talk.say([Self.messageStart, Self.textBlock, Self.words("No."), Self.blockStop] + Self.end("refusal"))
        #expect(talk.answer.text == "No.")
        #expect(talk.answer.stopReason == .refusal)
    }

    // MARK: Counting

    @Test func `tokens are counted without asking the model`() {
        let request = Self.request { $0.countsTokens = true }
        var talk = Talk(request)
        talk.say([Self.initialized])
        #expect(talk.written[1].contains(#""shouldQuery":false"#))
        talk.say([#"{"type":"result","subtype":"success","is_error":false,"num_turns":0,"result":""}"#])
        #expect(
            talk.written.last
                == #"{"type":"control_request","request_id":"usage","request":{"subtype":"get_context_usage"}}"#)
        talk.say([
            #"{"type":"control_response","response":{"subtype":"success","request_id":"usage","response":{"totalTokens":42}}}"#
        ])
        #expect(talk.events == [.counted(tokens: 42), .answered])
        #expect(talk.hasEnded)
        #expect(MessagesReply.count(talk.answer) == ["input_tokens": 42])
    }

    @Test(arguments: [#""subtype":"error","error":"no""#, #""subtype":"success","response":{}"#])
    func `a count that fails is a failure`(_ members: String) {
        var talk = Talk(Self.request { $0.countsTokens = true })
        talk.say([
            Self.initialized, #"{"type":"result","num_turns":0}"#,
            #"{"type":"control_response","response":{"request_id":"usage",\#(members)}}"#,
        ])
        #expect(talk.failure?.kind == .upstream)
        #expect(talk.hasEnded)
    }

    // MARK: Limits

    @Test func `the account's limits are handed on, also behind the answer`() throws {
        var talk = Talk(Self.request { _ in })
        talk.say(
            [Self.initialized, Self.messageStart, Self.textBlock, Self.words("a"), Self.blockStop]
                + Self.end("end_turn"))
        let info =
            #"{"status":"allowed_warning","rateLimitType":"five_hour","utilization":0.9,"resetsAt":1700000000}"#
        talk.say([#"{"type":"rate_limit_event","rate_limit_info":\#(info)}"#])
        let limit = try #require(RateLimit(json(info)))
        #expect(talk.events.last == .rateLimit(limit))
        #expect(limit.utilization == 0.9)
        #expect(limit.resetsAt == 1_700_000_000)
    }
}
