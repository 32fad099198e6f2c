import Testing

@testable import Dialects

/// A chat whose model has tools of the CLI's own: several messages of the model's are one to the caller.
@Suite struct HostToolsTests {
    private static func request(
        isStreaming: Bool, clientTools: [String] = [], schema: JSONValue? = nil
    ) throws -> RunRequest {
        var request = RunRequest(
            turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])], isStreaming: isStreaming)
        request.hostTools = try ["Bash(git *)", "Read", "WebSearch"].map { try #require(ToolRule($0)) }
        request.tools = clientTools.map {
            RunRequest.Tool(
                name: $0, definition: JSONObject([("name", .string($0)), ("input_schema", ["type": "object"])]))
        }
        request.outputSchema = schema
        return request
    }

    /// A conversation that has been fed, and what it says from there on.
    private struct Talk {
        var conversation: ClaudeConversation
        var events: [RunEvent] = []
        var written: [UInt8] = []
        var hasEnded = false

        init(_ request: RunRequest) {
            conversation = ClaudeConversation(request, model: nil)
            take(conversation.start())
            say(
                #"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{}}}"#,
                #"{"type":"control_request","request_id":"t","request":{"subtype":"mcp_message","message":{"id":1,"method":"tools/list"}}}"#,
                #"{"type":"control_response","response":{"subtype":"success","request_id":"settings"}}"#)
        }

        mutating func say(_ lines: String...) {
            for line in lines {
                let bytes = Array(line.utf8)
                take(conversation.receive(bytes, in: 0..<bytes.count))
            }
        }

        mutating func stream(_ event: JSONValue) {
            say(text(["type": "stream_event", "event": event, "parent_tool_use_id": nil]))
        }

        private mutating func take(_ actions: [ClaudeConversation.Action]) {
            for action in actions {
                switch action {
                case .write(let bytes): written += bytes
                case .event(let event): events.append(event)
                case .end: hasEnded = true
                }
            }
        }

        var input: String { String(decoding: written, as: UTF8.self) }
    }

    /// What the model writes: a text in pieces, a call of a tool by the CLI's name, or a thought.
    private enum Part { case text([String]), call(String), thought(String) }

    private static func message(
        _ id: Int, _ parts: [Part], stop: String, output: Int, to talk: inout Talk
    ) {
        talk.stream([
            "type": "message_start",
            "message": ["id": .string("msg_\(id)"), "model": "m", "usage": ["input_tokens": 10, "output_tokens": 1]],
        ])
        for (index, part) in parts.enumerated() {
            let place = ("index", JSONValue.integer(index))
            let deltas: [JSONValue]
            let block: JSONValue
            switch part {
            case .text(let pieces):
                block = ["type": "text", "text": ""]
                deltas = pieces.map { ["type": "text_delta", "text": .string($0)] }
            case .thought(let thought):
                block = ["type": "thinking", "thinking": ""]
                deltas = [
                    ["type": "thinking_delta", "thinking": .string(thought)],
                    ["type": "signature_delta", "signature": "s"],
                ]
            case .call(let name):
                block = [
                    "type": "tool_use", "id": .string("toolu_\(id)_\(index)"), "name": .string(name), "input": [:],
                ]
                deltas = [
                    ["type": "input_json_delta", "partial_json": #"{"a":"#],
                    ["type": "input_json_delta", "partial_json": "1}"],
                ]
            }
            talk.stream(.object(JSONObject([("type", "content_block_start"), place, ("content_block", block)])))
            for delta in deltas {
                talk.stream(.object(JSONObject([("type", "content_block_delta"), place, ("delta", delta)])))
            }
            talk.stream(.object(JSONObject([("type", "content_block_stop"), place])))
        }
        talk.stream([
            "type": "message_delta", "delta": ["stop_reason": .string(stop)],
            "usage": ["output_tokens": .integer(output)],
        ])
        talk.stream(["type": "message_stop"])
    }

    // MARK: What is written

    @Test func `host tools are granted, confined to the directory, and are arguments`() throws {
        let request = try Self.request(isStreaming: false)
        #expect(request.launchArguments == ["--tools", "Bash,Read,WebSearch", "--allowedTools", "mcp__client"])
        let talk = Talk(request)
        #expect(talk.input.contains(#""permissions":{"allow":["Bash(git *)","Read(./**)","WebSearch"]}"#))
    }

    @Test func `the caller's tools do not take the place of the host's`() throws {
        let talk = Talk(try Self.request(isStreaming: false, clientTools: ["weather"]))
        #expect(talk.input.contains(#""sdkMcpServers":["client"]"#))
        #expect(talk.input.contains(#""name":"weather""#))
        #expect(!talk.input.contains("CLAUDE_CODE_EXTRA_BODY"))
    }

    @Test func `no tools of the caller's are offered where it chooses none`() throws {
        var request = try Self.request(isStreaming: false, clientTools: ["weather"])
        request.toolChoice = JSONObject([("type", "none")])
        let talk = Talk(request)
        #expect(!talk.input.contains("weather") && !talk.input.contains("tool_choice"))
        #expect(talk.input.contains(#""type":"user""#))
    }

    @Test func `Claude Code's prompt may stay, with the caller's behind it`() throws {
        var request = try Self.request(isStreaming: false)
        request.usesClaudeCodePrompt = true
        request.system = ["A", "B"]
        let line = Talk(request).input.prefix { $0 != "\n" }
        #expect(line.contains(#""appendSystemPrompt":"A\n\nB""#) && !line.contains(#""systemPrompt":"#))
    }

    // MARK: What the caller sees

    @Test(arguments: [true, false])
    func `a loop of host tools is one message`(_ isStreaming: Bool) throws {
        var talk = Talk(try Self.request(isStreaming: isStreaming))
        Self.message(1, [.text(["I ", "look."]), .call("Bash")], stop: "tool_use", output: 5, to: &talk)
        #expect(!talk.hasEnded)
        Self.message(2, [.call("Read")], stop: "tool_use", output: 6, to: &talk)
        Self.message(3, [.text(["It is ", "so."])], stop: "end_turn", output: 7, to: &talk)
        let usage = TokenUsage(input: 30, output: 18)
        #expect(
            talk.events == [
                .messageStarted(id: "msg_1", model: "m", usage: TokenUsage(input: 10, output: 1)),
                .blockStarted(.text), .text("I "), .text("look."), .blockEnded, .blockStarted(.text),
                .text("\n\nIt is "), .text("so."), .blockEnded, .messageEnded(stopReason: .endTurn, usage: usage),
                .answered,
            ])
    }

    @Test func `a call of the caller's own tool ends the loop`() throws {
        var talk = Talk(try Self.request(isStreaming: true, clientTools: ["weather", "Bash"]))
        Self.message(1, [.call("Bash")], stop: "tool_use", output: 5, to: &talk)
        Self.message(
            2, [.call("Read"), .call("weather"), .call("mcp__client__Bash")], stop: "tool_use", output: 5, to: &talk)
        var answer = Answer()
        for event in talk.events { answer.append(event) }
        #expect(answer.toolCalls.map(\.name) == ["weather", "Bash"])
        #expect(answer.stopReason == .toolUse && talk.events.last == .answered && talk.hasEnded)
        #expect(answer.usage == TokenUsage(input: 20, output: 10))
    }

    @Test func `a structured answer may come at the end of a loop`() throws {
        var talk = Talk(try Self.request(isStreaming: true, schema: ["type": "object"]))
        talk.say(
            #"{"type":"system","subtype":"init","session_id":"s","model":"m","tools":["Bash","StructuredOutput"]}"#)
        Self.message(1, [.text(["Hm"]), .call("Bash")], stop: "tool_use", output: 5, to: &talk)
        Self.message(2, [.call("StructuredOutput")], stop: "tool_use", output: 5, to: &talk)
        talk.say(
            #"{"type":"result","subtype":"success","is_error":false,"result":"{\"a\":1}","structured_output":{"a":1},"usage":{"input_tokens":20,"output_tokens":10}}"#
        )
        var answer = Answer()
        for event in talk.events { answer.append(event) }
        #expect(answer.text == #"{"a":1}"# && answer.toolCalls.isEmpty && answer.stopReason == .endTurn)
        #expect(talk.events.contains(.answered))
    }

    @Test func `a message that breaks off behind a loop is a failure`() throws {
        var talk = Talk(try Self.request(isStreaming: false))
        Self.message(1, [.text(["I look."]), .call("Bash")], stop: "tool_use", output: 5, to: &talk)
        let start: JSONValue = ["type": "message_start", "message": ["id": "msg_2", "model": "m", "usage": [:]]]
        talk.stream(start)
        talk.stream(["type": "content_block_start", "index": 0, "content_block": ["type": "text", "text": ""]])
        talk.stream(["type": "content_block_delta", "index": 0, "delta": ["type": "text_delta", "text": "half"]])
        talk.stream(start)
        guard case .failed(let error) = talk.events.last else { return #expect(Bool(false), "no failure") }
        #expect(error.kind == .upstream && error.isTransient && talk.hasEnded)
    }

    @Test(arguments: (1...200).map { UInt64($0) })
    func `the caller sees one well-formed message, whatever the loop`(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let isStreaming = Bool.random(using: &generator)
        let endsInCall = Bool.random(using: &generator)
        var talk = Talk(try Self.request(isStreaming: isStreaming, clientTools: ["weather"]))
        var said: [String] = []
        let rounds = Int.random(in: 0...5, using: &generator)
        var output = 0
        for round in 0...rounds {
            let isLast = round == rounds
            var parts: [Part] = []
            for _ in 0..<Int.random(in: 0...3, using: &generator) {
                switch Int.random(in: 0...2, using: &generator) {
                case 0:
                    let pieces = (0..<Int.random(in: 1...3, using: &generator)).map { "t\(said.count).\($0) " }
                    said.append(pieces.joined())
                    parts.append(.text(pieces))
                case 1: parts.append(.thought("hm"))
                default:
                    parts.append(
                        isLast
                            ? .thought("well")
                            : .call(["Bash", "Read", "Nonsense"].randomElement(using: &generator) ?? ""))
                }
            }
            if !isLast || endsInCall { parts.append(.call(isLast ? "weather" : "WebSearch")) }
            if isLast, !endsInCall {
                said.append("end")
                parts.append(.text(["end"]))
            }
            let tokens = Int.random(in: 1...9, using: &generator)
            output += tokens
            Self.message(round, parts, stop: isLast && !endsInCall ? "end_turn" : "tool_use", output: tokens, to: &talk)
        }
        try Self.check(talk.events)
        #expect(talk.conversation.isEnded == endsInCall)
        var answer = Answer()
        for event in talk.events { answer.append(event) }
        #expect(answer.text.replacing("\n\n", with: "") == said.joined())
        #expect(answer.toolCalls.map(\.name) == (endsInCall ? ["weather"] : []))
        #expect(answer.stopReason == (endsInCall ? .toolUse : .endTurn))
        #expect(answer.usage == TokenUsage(input: 10 * (rounds + 1), output: output))
        #expect(answer.messageCount == 1)
        try Self.checkStream(talk.events)
    }

    /// One start, blocks one after the other, one end, the answer.
    private static func check(_ events: [RunEvent]) throws {
        guard case .messageStarted = events.first else { throw APIError(.internal, "no start") }
        #expect(events.last == .answered)
        var isOpen = false
        var hasEnded = false
        for event in events.dropFirst().dropLast() {
            #expect(!hasEnded)
            switch event {
            case .blockStarted:
                #expect(!isOpen)
                isOpen = true
            case .blockEnded:
                #expect(isOpen)
                isOpen = false
            case .text, .thinking, .signature, .toolInput: #expect(isOpen)
            case .messageEnded:
                #expect(!isOpen)
                hasEnded = true
            default: #expect(Bool(false), "\(event)")
            }
        }
        #expect(hasEnded)
    }

    /// The Messages API's own stream of them: indices in order, deltas inside their block.
    private static func checkStream(_ events: [RunEvent]) throws {
        var encoder = MessagesStream()
        var out: [UInt8] = []
        for event in events { encoder.encode(event, into: &out) }
        let data = String(decoding: out, as: UTF8.self).split(separator: "\n").filter { $0.hasPrefix("data: ") }
        let all = try data.map { try json(String($0.dropFirst(6))) }
        let types = all.map { $0["type"]?.stringValue ?? "" }
        #expect(types.first == "message_start" && types.suffix(2) == ["message_delta", "message_stop"])
        #expect(types.filter { $0.hasPrefix("message_") }.count == 3)
        var index = 0
        for event in all where event["index"] != nil {
            #expect(event["index"] == .integer(index))
            if event["type"] == "content_block_stop" { index += 1 }
        }
    }
}
