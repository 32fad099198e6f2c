import Testing

@testable import Dialects

@Suite struct ClaudeWarmupTests {
    private static func acknowledged(_ step: String, _ response: String = "{}") -> String {
        #"{"type":"control_response","response":{"subtype":"success","request_id":"warmup-\#(step)","response":\#(response)}}"#
    }

    private static let initialized = acknowledged("initialize", #"{"claude_code_version":"2.1.332"}"#)
    private static func asks(_ id: Int, _ method: String, _ parameters: String = "{}") -> String {
        #"{"type":"control_request","request_id":"q\#(id)","request":{"subtype":"mcp_message","server_name":"client","message":{"jsonrpc":"2.0","id":\#(id),"method":"\#(method)","params":\#(parameters)}}}"#
    }

    private static let listed = asks(1, "tools/list")
    private static let called = asks(
        2, "tools/call", #"{"name":"is_ready","_meta":{"claudecode/toolUseId":"toolu_warmup"}}"#)
    private static let answered = #"{"type":"result","subtype":"success","is_error":false,"result":"Ready."}"#
    private static let rewound = acknowledged("rewind", #"{"rewound":true}"#)

    /// A warming with what it has done.
    private struct Warming {
        var warmup: ClaudeWarmup
        var written: [String] = []
        var hasEnded = false

        init(baseURL: String? = "https://upstream", retries: String? = "2") {
            warmup = ClaudeWarmup(upstream: "http://responder", baseURL: baseURL, retries: retries)
            take(warmup.start())
        }

        mutating func take(_ actions: [ClaudeConversation.Action]) {
            for action in actions {
                switch action {
                case .write(let bytes): written.append(String(decoding: bytes, as: UTF8.self))
                case .event: Issue.record("there is no reply to hand an event to")
                case .end: hasEnded = true
                }
            }
        }

        mutating func say(_ lines: [String]) {
            for line in lines { take(warmup.receive(Array(line.utf8), in: 0..<line.utf8.count)) }
        }
    }

    /// All that a CLI says, in order; what is asked of it next waits for the last of these lines.
    private static let whole: [String] = [
        initialized, acknowledged("upstream"), acknowledged("tools"), listed, #"{"type":"system","subtype":"init"}"#,
        called,
        answered, rewound, acknowledged("clear"), acknowledged("restore"),
    ]

    @Test func `each step waits for the one before`() {
        var warming = Warming()
        for line in Self.whole {
            #expect(!warming.warmup.isReady)
            warming.say([line])
        }
        #expect(warming.warmup.isReady && !warming.hasEnded && warming.warmup.failure == nil)
        #expect(
            warming.written
                == [
                    #"{"type":"control_request","request_id":"warmup-initialize","request":{"subtype":"initialize","hooks":null,"systemPrompt":[""],"systemPromptSnapshot":false}}"#,
                    #"{"type":"control_request","request_id":"warmup-upstream","request":{"subtype":"apply_flag_settings","settings":{"env":{"ANTHROPIC_BASE_URL":"http://responder","CLAUDE_CODE_MAX_RETRIES":"0"}}}}"#,
                    #"{"type":"control_request","request_id":"warmup-tools","request":{"subtype":"mcp_set_servers","servers":{"client":{"type":"sdk","name":"client"}}}}"#,
                    #"{"type":"control_response","response":{"subtype":"success","response":{"mcp_response":{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"is_ready","description":"Whether it is.","inputSchema":{"type":"object","properties":{}},"annotations":{"readOnlyHint":true}}]}}},"request_id":"q1"}}"#,
                    #"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"Hi"}]},"parent_tool_use_id":null,"session_id":"","client_composed":true,"uuid":"00000000-0000-4000-8000-000000000001"}"#,
                    #"{"type":"control_response","response":{"subtype":"success","response":{"mcp_response":{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"It is."}]}}},"request_id":"q2"}}"#,
                    #"{"type":"control_request","request_id":"warmup-rewind","request":{"subtype":"rewind_conversation","target_message_uuid":"00000000-0000-4000-8000-000000000001"}}"#,
                    #"{"type":"control_request","request_id":"warmup-clear","request":{"subtype":"mcp_set_servers","servers":{}}}"#,
                    #"{"type":"control_request","request_id":"warmup-restore","request":{"subtype":"apply_flag_settings","settings":{"env":{"ANTHROPIC_BASE_URL":"https://upstream","CLAUDE_CODE_MAX_RETRIES":"2"}}}}"#,
                ].map { $0 + "\n" })
    }

    @Test func `the model is asked when the tool is known, whichever word of it comes first`() {
        var warming = Warming()
        warming.say([Self.initialized, Self.acknowledged("upstream"), Self.listed])
        #expect(warming.written.last?.contains("is_ready") == true)
        warming.say([Self.acknowledged("tools")])
        #expect(warming.written.last?.contains(#""text":"Hi""#) == true)
    }

    @Test func `what the process was not started with is taken away`() {
        var warming = Warming(baseURL: nil, retries: nil)
        warming.say(Self.whole)
        #expect(
            warming.written.last?.contains(#""env":{"ANTHROPIC_BASE_URL":null,"CLAUDE_CODE_MAX_RETRIES":null}"#) == true
        )
    }

    /// The lines before the one that goes wrong, and that one.
    @Test(arguments: [
        (0, "no json"), (0, acknowledged("initialize", #"{"claude_code_version":"2.1.250"}"#)),
        (0, initialized.replacing(#""success""#, with: #""error""#)),
        (1, acknowledged("upstream").replacing(#""success""#, with: #""error""#)),
        (2, acknowledged("tools").replacing(#""success""#, with: #""error""#)),
        (6, answered.replacing("false", with: "true")), (6, #"{"type":"result"}"#),
        // The call never came.
        (5, answered),
        (7, acknowledged("rewind", #"{"rewound":false}"#)), (7, acknowledged("rewind")),
        (8, acknowledged("clear").replacing(#""success""#, with: #""error""#)),
        (9, acknowledged("restore").replacing(#""success""#, with: #""error""#)),
    ])
    func `a process in which a step fails is ended`(_ count: Int, _ line: String) {
        var warming = Warming()
        warming.say(Self.whole.prefix(count) + [line])
        #expect(warming.hasEnded && !warming.warmup.isReady)
        #expect(warming.warmup.failure?.isEmpty == false)
        let written = warming.written.count
        warming.say(Self.whole)
        #expect(!warming.warmup.isReady && warming.written.count == written)
    }

    @Test func `what comes out of turn changes nothing`() {
        var warming = Warming()
        warming.say([
            Self.answered, Self.rewound, Self.acknowledged("clear"), Self.acknowledged("restore"),
            #"{"type":"result","is_error":true}"#,
        ])
        #expect(warming.written.count == 1 && !warming.hasEnded)
        warming.say([Self.initialized, Self.initialized, Self.acknowledged("upstream"), Self.acknowledged("upstream")])
        #expect(warming.written.count == 3)
    }

    @Test func `the upstream calls the tool, then says something, and counts nothing`() throws {
        var request: JSONValue = ["model": "m", "stream": true, "messages": [["role": "user", "content": "Hi"]]]
        let call = try #require(WarmupUpstream.answer(to: JSONWriter.bytes(request)))
        let text = String(decoding: call, as: UTF8.self)
        #expect(text.contains(#""type":"tool_use","id":"toolu_warmup","name":"is_ready""#))
        #expect(
            text.hasPrefix("event: message_start\ndata: {") && text.contains(#""input_tokens":0,"output_tokens":0"#))
        request = [
            "model": "m", "stream": true,
            "messages": [
                ["role": "user", "content": "Hi"],
                ["role": "user", "content": [["type": "tool_result", "tool_use_id": "toolu_warmup"]]],
            ],
        ]
        let words = try #require(WarmupUpstream.answer(to: JSONWriter.bytes(request)))
        #expect(String(decoding: words, as: UTF8.self).contains(#""delta":{"type":"text_delta","text":"Ready."}"#))
    }

    @Test(arguments: [
        "", "no json", "[]", #"{"model":"m","messages":[]}"#, #"{"model":"m","stream":false,"messages":[]}"#,
        #"{"stream":true,"messages":[]}"#, #"{"model":"m","stream":true}"#,
    ])
    func `what is no turn is refused`(_ body: String) {
        #expect(WarmupUpstream.answer(to: Array(body.utf8)) == nil)
    }

    @Test func `what the CLI asks for is refused`() {
        var warming = Warming()
        warming.say([#"{"type":"control_request","request_id":"q","request":{"subtype":"can_use_tool"}}"#])
        #expect(
            warming.written.last?.contains(#""subtype":"error","error":"not supported by this host","request_id":"q""#)
                == true)
    }

    @Test func `a process that ends is of no use, at any time`() {
        var warming = Warming()
        warming.take(warming.warmup.outputEnded(cause: "gone"))
        #expect(warming.hasEnded && warming.warmup.failure == "gone")
        warming = Warming()
        warming.say(Self.whole)
        #expect(warming.warmup.isReady)
        warming.take(warming.warmup.outputEnded(cause: "gone"))
        #expect(warming.hasEnded && !warming.warmup.isReady)
    }

    @Test(arguments: [
        ([:], true), (["ANTHROPIC_BASE_URL": "http://x", "NO_PROXY": "*", "no_proxy": "*"], true),
        (["HTTPS_PROXY": "", "CLAUDE_CODE_USE_BEDROCK": "0", "CLAUDE_CODE_USE_VERTEX": "false"], true),
        (["CLAUDE_CODE_USE_BEDROCK": "1"], false), (["CLAUDE_CODE_USE_VERTEX": "true"], false),
        (["CLAUDE_CODE_USE_FOUNDRY": "1"], false), (["HTTPS_PROXY": "http://p"], false),
        (["http_proxy": "http://p"], false),
        (["ALL_PROXY": "http://p"], false),
    ])
    func `nothing is asked elsewhere`(_ environment: [String: String], _ isPossible: Bool) {
        #expect(ClaudeWarmup.isPossible(environment: environment) == isPossible)
    }
}
