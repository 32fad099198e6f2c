import Testing

@testable import Dialects

/// A conversation that stays in its process: when it may, and what is done with what comes in the meantime.
@Suite struct LiveConversationTests {
    private static let initialized =
        #"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{"claude_code_version":"2.1.332"}}}"#
    private static let begun = #"{"type":"system","subtype":"init","session_id":"s","model":"m"}"#
    private static let messageStart = event(
        #"{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":3}}}"#)
    private static let blockStop = event(#"{"type":"content_block_stop","index":0}"#)
    private static let settings =
        #"{"type":"control_response","response":{"subtype":"success","request_id":"settings"}}"#

    private static func event(_ json: String) -> String { #"{"type":"stream_event","event":\#(json)}"# }

    private static func end(_ reason: String) -> [String] {
        [
            event(#"{"type":"message_delta","delta":{"stop_reason":"\#(reason)"},"usage":{"output_tokens":2}}"#),
            event(#"{"type":"message_stop"}"#),
        ]
    }

    private static func recorded(_ block: String) -> String {
        #"{"type":"assistant","message":{"role":"assistant","content":[\#(block)]},"parent_tool_use_id":null}"#
    }

    private static func words(_ words: String) -> [String] {
        [
            event(#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#),
            event(#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"\#(words)"}}"#),
            recorded(#"{"type":"text","text":"\#(words)","citations":null}"#), blockStop,
        ]
    }

    private static func call(_ id: String, name: String = "get", input: String = #"{"a":1}"#) -> [String] {
        [
            event(
                #"{"type":"content_block_start","content_block":{"type":"tool_use","id":"\#(id)","name":"\#(name)","input":{}}}"#
            ),
            event(
                #"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":\#(text(.string(input)))}}"#
            ),
            recorded(#"{"type":"tool_use","id":"\#(id)","name":"\#(name)","input":\#(input)}"#), blockStop,
        ]
    }

    private static func asked(_ id: String) -> String {
        #"{"type":"control_request","request_id":"r-\#(id)","request":{"subtype":"mcp_message","message":{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"_meta":{"claudecode/toolUseId":"\#(id)"}}}}}"#
    }

    /// What the CLI took for the result of a call.
    private static func told(_ id: String) -> String {
        #"{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"\#(id)"}]}}"#
    }

    private static func result(_ usage: String = #"{"input_tokens":3,"output_tokens":2}"#, cost: String = "0.5")
        -> String
    {
        #"{"type":"result","subtype":"success","is_error":false,"result":"x","num_turns":1,"total_cost_usd":\#(cost),"usage":\#(usage)}"#
    }

    /// A conversation with what it did since it was looked at.
    private struct Talk {
        var conversation: ClaudeConversation
        var written: [String] = []
        var events: [RunEvent] = []
        var hasEnded = false

        init(_ request: RunRequest) {
            conversation = ClaudeConversation(request, model: nil)
            take(conversation.start())
            say([LiveConversationTests.initialized])
            if !request.tools.isEmpty {
                say([
                    LiveConversationTests.settings,
                    #"{"type":"control_request","request_id":"l","request":{"subtype":"mcp_message","message":{"id":1,"method":"tools/list"}}}"#,
                ])
            }
            say([LiveConversationTests.begun])
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
            for line in lines { take(conversation.receive(Array(line.utf8), in: 0..<line.utf8.count)) }
        }

        mutating func resume(_ request: RunRequest) {
            written = []
            events = []
            hasEnded = false
            take(conversation.resume(request))
        }

        var failure: APIError? {
            for case .failed(let error) in events { return error }
            return nil
        }
    }

    private static func request(_ texts: String..., tools: [String] = []) -> RunRequest {
        var request = RunRequest(turns: [])
        for text in texts {
            request.append(request.turns.last?.role == .user ? .assistant : .user, [RunRequest.Turn.text(text)])
        }
        request.tools = tools.map {
            .init(name: $0, definition: JSONObject([("name", .string($0)), ("input_schema", ["type": "object"])]))
        }
        return request
    }

    private static func withResults(_ results: [(String, JSONValue)]) -> RunRequest {
        var request = request("Hi", tools: ["get"])
        let calls = results.map {
            ["type": "tool_use", "id": .string($0.0), "name": "get", "input": ["a": 1]] as JSONValue
        }
        request.append(.assistant, calls)
        request.append(.user, results.map { ["type": "tool_result", "tool_use_id": .string($0.0), "content": $0.1] })
        return request
    }

    private static func answered() -> Talk {
        var talk = Talk(request("Hi"))
        talk.say([messageStart] + words("Yes.") + end("end_turn") + [result()])
        return talk
    }

    private static func waiting(_ ids: [String] = ["toolu_1"], asked: [String] = ["toolu_1"]) -> Talk {
        var talk = Talk(request("Hi", tools: ["get"]))
        talk.say([messageStart] + ids.flatMap { call($0) } + asked.map { Self.asked($0) } + end("tool_use"))
        return talk
    }

    // MARK: Text

    @Test func `an answer that ended by itself can be continued when the CLI has reported it`() {
        var talk = Talk(Self.request("Hi"))
        talk.say([Self.messageStart] + Self.words("Yes.") + Self.end("end_turn"))
        #expect(talk.events.last == .answered)
        #expect(!talk.conversation.isContinuable && !talk.hasEnded)
        talk.say([Self.result()])
        #expect(talk.conversation.isContinuable && talk.hasEnded && !talk.conversation.isCut)
        #expect(talk.conversation.openCalls.isEmpty)
    }

    @Test func `the next turn is one line, and is told as the first`() {
        var talk = Self.answered()
        let first = talk.events
        talk.conversation.park()
        talk.resume(Self.request("Hi", "Yes.", "Go on"))
        #expect(
            talk.written == [
                #"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"Go on"}]},"parent_tool_use_id":null,"session_id":"","client_composed":true}"#
            ])
        talk.say(
            [Self.begun, Self.messageStart] + Self.words("Yes.") + Self.end("end_turn") + [Self.result(cost: "1.0")])
        #expect(talk.events == first)
        #expect(talk.conversation.isContinuable)
    }

    /// The CLI's total is that of the process.
    @Test func `each turn has its own price`() {
        var talk = Self.answered()
        var prices: [Double?] = []
        for cost in ["0.75", "0.75", "1.5"] {
            talk.conversation.park()
            talk.resume(Self.request("Hi", "Yes.", "Go on"))
            talk.say([Self.messageStart] + Self.words("Yes.") + Self.end("end_turn") + [Self.result(cost: cost)])
            for case .finished(let summary) in talk.events { prices.append(summary.costUSD) }
        }
        #expect(prices == [0.25, 0, 0.75])
    }

    @Test func `retries are counted by the turn`() {
        var talk = Talk(Self.request("Hi"))
        let retry = #"{"type":"system","subtype":"api_retry"}"#
        talk.say([retry, retry, Self.messageStart] + Self.words("Yes.") + Self.end("end_turn") + [Self.result()])
        #expect(talk.conversation.retryCount == 2)
        talk.conversation.park()
        talk.resume(Self.request("Hi", "Yes.", "Go on"))
        talk.say([retry])
        #expect(talk.conversation.retryCount == 1)
    }

    @Test(arguments: ["max_tokens", "stop_sequence", "refusal", "pause_turn"])
    func `an answer that did not end by itself is the last`(_ reason: String) {
        var talk = Talk(Self.request("Hi"))
        talk.say([Self.messageStart] + Self.words("Yes.") + Self.end(reason) + [Self.result()])
        #expect(talk.events.contains(.answered))
        #expect(!talk.conversation.isContinuable)
    }

    @Test func `a process that reports a failure behind its answer is not kept`() {
        for members in [
            #""subtype":"success","is_error":true"#, #""subtype":"error_during_execution","is_error":false"#,
        ] {
            var talk = Talk(Self.request("Hi"))
            talk.say([Self.messageStart] + Self.words("Yes.") + Self.end("end_turn"))
            talk.say([#"{"type":"result",\#(members),"result":""}"#])
            #expect(talk.hasEnded && !talk.conversation.isContinuable)
        }
    }

    @Test func `a process whose record differs from the answer is not kept`() {
        let other = Self.recorded(#"{"type":"text","text":"More."}"#)
        let foreign =
            #"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"[Request interrupted]"}]}}"#
        let unlike = Self.words("Yes.").map {
            $0.replacing(#""text":"Yes.","citations""#, with: #""text":"Yes","citations""#)
        }
        for lines in [
            [Self.messageStart] + Self.words("Yes.") + [other], [Self.messageStart] + Self.words("Yes.") + [foreign],
            [Self.messageStart] + unlike,
            [Self.messageStart] + Self.words("Ye") + [Self.messageStart] + Self.words("Yes."),
            [Self.messageStart] + Self.words("Yes.").filter { !$0.contains("\"assistant\"") },
        ] {
            var talk = Talk(Self.request("Hi"))
            talk.say(lines + Self.end("end_turn") + [Self.result()])
            #expect(talk.events.contains(.answered))
            #expect(talk.hasEnded && !talk.conversation.isContinuable)
        }
    }

    @Test func `requests that need a process of their own are never continued`() {
        for change in [
            { $0.choiceCount = 2 }, { $0.hostTools = [ToolRule("Read")].compactMap { $0 } },
            { $0.profile = .agent(AgentProfile(tools: [], allowRules: [], workingDirectory: nil)) },
        ] as [(inout RunRequest) -> Void] {
            var request = Self.request("Hi")
            change(&request)
            #expect(!request.allowsLive)
            var talk = Talk(request)
            talk.say(
                [Self.settings, Self.begun, Self.messageStart] + Self.words("Yes.") + Self.end("end_turn") + [
                    Self.result()
                ])
            #expect(talk.events.contains(.answered))
            #expect(!talk.conversation.isContinuable)
        }
    }

    // MARK: Calls

    @Test func `a call of the caller's tools waits for its result in the process`() throws {
        var talk = Self.waiting(["toolu_1", "toolu_2"], asked: ["toolu_1", "toolu_2"])
        #expect(talk.hasEnded && talk.conversation.isContinuable)
        #expect(talk.conversation.openCalls == ["toolu_1", "toolu_2"])
        talk.conversation.park()
        #expect(!talk.conversation.isCut)
        talk.resume(
            Self.withResults([("toolu_1", "42"), ("toolu_2", [RunRequest.Turn.text("a"), RunRequest.Turn.text("b")])]))
        #expect(talk.events == [.started(sessionID: "s", model: "m")])
        let first =
            #"{"type":"control_response","response":{"subtype":"success","response":{"mcp_response":{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"42"}]}}},"request_id":"r-toolu_1"}}"#
        #expect(talk.written == [first])
        talk.say([Self.told("toolu_1")])
        #expect(
            talk.written == [
                first,
                #"{"type":"control_response","response":{"subtype":"success","response":{"mcp_response":{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}},"request_id":"r-toolu_2"}}"#,
            ])
        // The CLI reports both messages as one turn.
        talk.say(
            [Self.told("toolu_2")]
                + [Self.messageStart] + Self.words("Yes.") + Self.end("end_turn")
                + [Self.result(#"{"input_tokens":30,"output_tokens":20}"#)])
        #expect(talk.conversation.isContinuable)
        guard case .finished(let summary)? = talk.events.last else { throw APIError(.cli, "no report") }
        #expect(summary.usage == TokenUsage(input: 3, output: 2))
    }

    @Test func `a call that the CLI makes late is answered then`() {
        var talk = Self.waiting(["toolu_1", "toolu_2"], asked: [])
        #expect(talk.conversation.isContinuable)
        talk.conversation.park()
        talk.written = []
        talk.say([Self.asked("toolu_1")])
        #expect(talk.written.isEmpty)
        talk.resume(Self.withResults([("toolu_1", "1"), ("toolu_2", "2")]))
        #expect(talk.written.count == 1)
        talk.say([Self.told("toolu_1")])
        #expect(talk.written.count == 1)
        talk.say([Self.asked("toolu_2")])
        #expect(talk.written.count == 2)
        #expect(talk.written[1].contains(#""request_id":"r-toolu_2""#))
    }

    @Test func `a CLI that waits for all results gets them`() {
        var talk = Self.waiting(["toolu_1", "toolu_2"], asked: ["toolu_1", "toolu_2"])
        talk.conversation.park()
        let heartbeat = #"{"type":"tool_progress","tool_use_id":"toolu_2-heartbeat-9"}"#
        talk.say([heartbeat, heartbeat, heartbeat, heartbeat])
        talk.resume(Self.withResults([("toolu_1", "1"), ("toolu_2", "2")]))
        talk.say([heartbeat, heartbeat])
        #expect(talk.written.count == 1)
        talk.say([heartbeat])
        #expect(talk.written.count == 2)
    }

    @Test func `a CLI that answers a call by itself has not what the caller said`() {
        var talk = Self.waiting(["toolu_1"], asked: [])
        talk.conversation.park()
        talk.resume(Self.withResults([("toolu_1", "1")]))
        talk.say([
            #"{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1"}]}}"#
        ])
        #expect(talk.failure?.isTransient == true)
        #expect(talk.hasEnded && talk.conversation.isCut)
    }

    @Test(arguments: [
        // A tool that is not the caller's, input that is no object, input that the CLI has in other words.
        call("toolu_1", name: "other"), call("toolu_1", input: "[1]"),
        call("toolu_1").map { $0.replacing(#""input":{"a":1}"#, with: #""input":{"a":2}"#) },
        // What has no id to be answered by, and what the CLI answered already.
        call("toolu_1") + [asked("toolu_1").replacing("claudecode/toolUseId", with: "other")],
        call("toolu_1") + [
            #"{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1"}]}}"#
        ],
    ])
    func `a call that may never be asked for is the last`(_ lines: [String]) {
        var talk = Talk(Self.request("Hi", tools: ["get"]))
        talk.say([Self.messageStart] + lines + Self.end("tool_use"))
        #expect(talk.events.last == .answered)
        #expect(talk.hasEnded && talk.conversation.isCut && !talk.conversation.isContinuable)
    }

    // MARK: Parked

    @Test(arguments: [
        #"{"type":"tool_progress","tool_use_id":"toolu_1-heartbeat-0"}"#, #"{"type":"rate_limit_event"}"#,
        #"{"type":"keep_alive"}"#, #"{"type":"system","subtype":"status","status":null}"#,
    ])
    func `what the CLI says while it waits is read`(_ line: String) {
        var talk = Self.waiting()
        talk.conversation.park()
        talk.hasEnded = false
        talk.events = []
        talk.say([line])
        #expect(!talk.hasEnded && talk.events.isEmpty)
        talk.resume(Self.withResults([("toolu_1", "1")]))
        #expect(talk.written.count == 1)
    }

    @Test func `an MCP client that asks while it waits is answered`() {
        var talk = Self.waiting()
        talk.conversation.park()
        talk.written = []
        talk.say([
            #"{"type":"control_request","request_id":"p","request":{"subtype":"mcp_message","message":{"id":9,"method":"ping"}}}"#
        ])
        #expect(talk.written.count == 1)
        #expect(talk.conversation.isContinuable)
    }

    @Test(arguments: [
        "no json", messageStart, begun, #"{"type":"result","subtype":"success"}"#,
        #"{"type":"user","message":{"role":"user","content":[]}}"#, #"{"type":"assistant","message":{}}"#,
        #"{"type":"system","subtype":"api_retry"}"#, #"{"type":"system","subtype":"status","status":"requesting"}"#,
        #"{"type":"control_cancel_request","request_id":"r-toolu_1"}"#, "{}",
        asked("toolu_1").replacing("claudecode/toolUseId", with: "other"),
    ])
    func `a process that goes on by itself is ended`(_ line: String) {
        for talk in [Self.waiting(), Self.answered()] {
            // Its own tools are asked for only where there are some.
            if talk.conversation.openCalls.isEmpty, line.contains("tools/call") { continue }
            var talk = talk
            talk.conversation.park()
            talk.hasEnded = false
            talk.events = []
            talk.say([line])
            #expect(talk.hasEnded && talk.conversation.isEnded)
            #expect(talk.events.isEmpty && !talk.conversation.isContinuable)
        }
    }

    @Test func `a process that ends while it waits says nothing`() {
        for end in [{ $0.outputEnded(cause: "") }, { $0.lineTooLong(limitBytes: 1) }]
            as [(inout ClaudeConversation) -> [ClaudeConversation.Action]]
        {
            var talk = Self.answered()
            talk.conversation.park()
            #expect(end(&talk.conversation) == [.end])
            #expect(talk.conversation.isEnded && !talk.conversation.isContinuable)
        }
    }

    @Test func `a turn that fails ends the conversation`() {
        var talk = Self.answered()
        talk.conversation.park()
        talk.resume(Self.request("Hi", "Yes.", "Go on"))
        talk.say([
            #"{"type":"result","subtype":"success","is_error":true,"api_error_status":529,"result":"API Error: 529"}"#
        ])
        #expect(talk.failure?.kind == .overloaded)
        #expect(!talk.conversation.isContinuable)
    }

    @Test func `a process that dies in a later turn is a failure that can be tried again`() {
        var talk = Self.answered()
        talk.conversation.park()
        talk.resume(Self.request("Hi", "Yes.", "Go on"))
        talk.take(talk.conversation.outputEnded(cause: "gone"))
        #expect(talk.failure?.isTransient == true)
    }
}
