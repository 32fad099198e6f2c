import Dialects
import Testing

/// A run of Claude Code, where no transcript shows it.
@Suite struct AgentConversationTests {
    private static let initialized =
        #"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{}}}"#
    private static let configured =
        #"{"type":"control_response","response":{"subtype":"success","request_id":"settings"}}"#

    private static func servers(_ errors: String) -> String {
        #"{"type":"control_response","response":{"subtype":"success","request_id":"servers","response":{"added":["a"],"removed":[],"errors":\#(errors)}}}"#
    }

    private static func result(_ members: String) -> String {
        #"{"type":"result","session_id":"cli","num_turns":2,"usage":{"input_tokens":3,"output_tokens":4}\#(members)}"#
    }

    private struct Talk {
        var conversation: ClaudeConversation
        var events: [RunEvent] = []
        var lines: [String] = []

        init(_ change: (inout RunRequest, inout AgentProfile) -> Void = { _, _ in }) {
            var profile = AgentProfile(tools: ["Bash"], allowRules: ["Bash"], workingDirectory: nil)
            var request = RunRequest(turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
            change(&request, &profile)
            request.profile = .agent(profile)
            conversation = ClaudeConversation(request, model: nil)
            take(conversation.start())
        }

        mutating func say(_ lines: String...) {
            for line in lines {
                let bytes = Array(line.utf8)
                take(conversation.receive(bytes, in: 0..<bytes.count))
            }
        }

        private mutating func take(_ actions: [ClaudeConversation.Action]) {
            for action in actions {
                switch action {
                case .write(let bytes):
                    lines += String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { String($0) }
                case .event(let event): events.append(event)
                case .end: break
                }
            }
        }

        var summary: RunSummary? {
            for case .finished(let summary) in events { return summary }
            return nil
        }

        var failure: APIError? {
            for case .failed(let error) in events { return error }
            return nil
        }
    }

    @Test func `prompts are told before anything else`() {
        let talk = Talk { request, profile in
            request.system = ["S"]
            profile.appendedSystemPrompt = "A"
        }
        #expect(
            talk.lines == [
                #"{"type":"control_request","request_id":"initialize","request":{"subtype":"initialize","hooks":null,"systemPrompt":["S"],"appendSystemPrompt":"A","systemPromptSnapshot":false}}"#
            ])
    }

    @Test func `grants and refusals are settings`() {
        var talk = Talk { _, profile in profile.denyRules = ["Bash(rm *)"] }
        talk.say(Self.initialized)
        #expect(
            talk.lines.last
                == #"{"type":"control_request","request_id":"settings","request":{"subtype":"apply_flag_settings","settings":{"permissions":{"allow":["Bash"],"deny":["Bash(rm *)"]}}}}"#
        )
    }

    @Test func `MCP servers are started before the turn`() {
        var talk = Talk { _, profile in
            profile.mcpServers = JSONObject([("a", ["type": "stdio", "command": "x"])])
        }
        talk.say(Self.initialized, Self.configured)
        #expect(
            talk.lines.last
                == #"{"type":"control_request","request_id":"servers","request":{"subtype":"mcp_set_servers","servers":{"a":{"type":"stdio","command":"x"}}}}"#
        )
        talk.say(Self.servers("{}"))
        #expect(talk.lines.last?.hasPrefix(#"{"type":"user""#) == true && talk.failure == nil)
    }

    @Test func `an MCP server that can't be reached is the caller's affair`() {
        var talk = Talk { _, profile in
            profile.mcpServers = JSONObject([("a", ["type": "stdio", "command": "x"])])
        }
        talk.say(Self.initialized, Self.configured, Self.servers(#"{"a":"no such file"}"#))
        #expect(talk.failure?.kind == .invalidRequest && talk.failure?.parameter == "mcpServers.a")
        #expect(talk.failure?.cause == "no such file" && talk.failure?.message.contains("no such file") == false)
        #expect(!talk.lines.contains { $0.hasPrefix(#"{"type":"user""#) })
    }

    @Test func `results of the tools are told, a subagent's and the CLI's own words are not`() {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.configured,
            #"{"type":"user","uuid":"u1","parent_tool_use_id":null,"message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"a"},{"type":"text","text":"b"}]}}"#,
            #"{"type":"user","uuid":"u2","parent_tool_use_id":"t9","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t2","content":"c"}]}}"#,
            #"{"type":"user","uuid":"u3","parent_tool_use_id":null,"message":{"role":"user","content":"text"}}"#)
        #expect(talk.events == [.toolResult(["type": "tool_result", "tool_use_id": "t1", "content": "a"])])
    }

    @Test(arguments: ["error_max_turns", "error_max_budget_usd"])
    func `a limit is an answer, with the report in it`(_ ending: String) {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.configured,
            #"{"type":"assistant","uuid":"u7","parent_tool_use_id":null,"message":{}}"#,
            Self.result(#","subtype":"\#(ending)","is_error":true,"permission_denials":[{"tool_name":"Bash"}]"#))
        #expect(talk.events.last == .answered && talk.failure == nil && talk.conversation.isEnded)
        #expect(talk.summary?.ending == ending && talk.summary?.denials == [["tool_name": "Bash"]])
        #expect(talk.summary?.lastMessageID == "u7" && talk.summary?.usage == TokenUsage(input: 3, output: 4))
    }

    @Test func `another error is a failure`() {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.configured, Self.result(#","subtype":"error_during_execution","is_error":true"#))
        #expect(talk.failure?.kind == .cli && !talk.events.contains(.answered))
    }

    @Test(
        arguments: [
            (#","total_cost_usd":0.5"#, 0.5),
            (
                #","total_cost_usd":0.5,"model_usage_since_last_result":{"m":{"costUSD":0.125},"n":{"costUSD":0.25}}"#,
                0.375
            ),
            (#","total_cost_usd":0.5,"model_usage_since_last_result":{}"#, 0.5), ("", nil),
        ] as [(String, Double?)])
    func `the price is the turn's, not the conversation's`(_ members: String, _ cost: Double?) {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.configured, Self.result(#","subtype":"success","is_error":false\#(members)"#))
        #expect(talk.summary?.costUSD == cost)
    }

    @Test func `a run that must give a structure and gives none has failed`() {
        var talk = Talk { request, _ in request.outputSchema = ["type": "object"] }
        talk.say(
            Self.initialized, Self.configured, Self.result(#","subtype":"success","is_error":false,"result":"x""#))
        #expect(talk.failure?.kind == .upstream && talk.failure?.isTransient == false)
    }

    @Test func `a structured run keeps the CLI's tools, and its schema is the CLI's to offer`() {
        var talk = Talk { request, _ in request.outputSchema = ["type": "object"] }
        talk.say(Self.initialized)
        #expect(talk.lines[0].contains(#""jsonSchema":{"type":"object"}"#))
        #expect(!talk.lines[1].contains("CLAUDE_CODE_EXTRA_BODY"))
    }

    @Test func `a stream whose message begins anew after text is a failure`() {
        for isStreaming in [true, false] {
            var talk = Talk { request, _ in request.isStreaming = isStreaming }
            let start = #"{"type":"stream_event","event":{"type":"message_start","message":{"id":"m","usage":{}}}}"#
            talk.say(
                Self.initialized, Self.configured, start,
                #"{"type":"stream_event","event":{"type":"content_block_start","content_block":{"type":"text"}}}"#,
                #"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}}"#,
                start)
            #expect((talk.failure != nil) == isStreaming)
        }
    }
}
