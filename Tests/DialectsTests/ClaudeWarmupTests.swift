import Testing

@testable import Dialects

@Suite struct ClaudeWarmupTests {
    private static func acknowledged(_ step: String, _ response: String = "{}") -> String {
        #"{"type":"control_response","response":{"subtype":"success","request_id":"warmup-\#(step)","response":\#(response)}}"#
    }

    private static let initialized = acknowledged("initialize", #"{"claude_code_version":"2.1.332"}"#)
    private static let failed = #"{"type":"result","subtype":"success","is_error":true,"result":"API Error: refused"}"#
    private static let rewound = acknowledged("rewind", #"{"rewound":true}"#)

    /// A warming with what it has done.
    private struct Warming {
        var warmup: ClaudeWarmup
        var written: [String] = []
        var hasEnded = false

        init(baseURL: String? = "https://upstream", retries: String? = "2") {
            warmup = ClaudeWarmup(baseURL: baseURL, retries: retries)
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

    @Test func `each step waits for the one before`() {
        var warming = Warming()
        let lines = [
            Self.initialized, Self.acknowledged("offline"), #"{"type":"system","subtype":"init"}"#, Self.failed,
            Self.rewound, Self.acknowledged("restore"),
        ]
        for line in lines {
            #expect(!warming.warmup.isReady)
            warming.say([line])
        }
        #expect(warming.warmup.isReady && !warming.hasEnded && warming.warmup.failure == nil)
        #expect(
            warming.written
                == [
                    #"{"type":"control_request","request_id":"warmup-initialize","request":{"subtype":"initialize","hooks":null,"systemPrompt":[""],"systemPromptSnapshot":false}}"#,
                    #"{"type":"control_request","request_id":"warmup-offline","request":{"subtype":"apply_flag_settings","settings":{"env":{"ANTHROPIC_BASE_URL":"http://127.0.0.1:1","CLAUDE_CODE_MAX_RETRIES":"0"}}}}"#,
                    #"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"Hi"}]},"parent_tool_use_id":null,"session_id":"","client_composed":true,"uuid":"00000000-0000-4000-8000-000000000001"}"#,
                    #"{"type":"control_request","request_id":"warmup-rewind","request":{"subtype":"rewind_conversation","target_message_uuid":"00000000-0000-4000-8000-000000000001"}}"#,
                    #"{"type":"control_request","request_id":"warmup-restore","request":{"subtype":"apply_flag_settings","settings":{"env":{"ANTHROPIC_BASE_URL":"https://upstream","CLAUDE_CODE_MAX_RETRIES":"2"}}}}"#,
                ].map { $0 + "\n" })
    }

    @Test func `what the process was not started with is taken away`() {
        var warming = Warming(baseURL: nil, retries: nil)
        warming.say([Self.initialized, Self.acknowledged("offline"), Self.failed, Self.rewound])
        #expect(
            warming.written.last?.contains(#""env":{"ANTHROPIC_BASE_URL":null,"CLAUDE_CODE_MAX_RETRIES":null}"#) == true
        )
    }

    @Test(arguments: [
        ["no json"],
        [acknowledged("initialize", #"{"claude_code_version":"2.1.250"}"#)],
        [initialized.replacing(#""success""#, with: #""error""#)],
        [initialized, acknowledged("offline").replacing(#""success""#, with: #""error""#)],
        // It was answered: by whom?
        [initialized, acknowledged("offline"), failed.replacing("true", with: "false")],
        [initialized, acknowledged("offline"), #"{"type":"result"}"#],
        [initialized, acknowledged("offline"), failed, acknowledged("rewind", #"{"rewound":false}"#)],
        [initialized, acknowledged("offline"), failed, acknowledged("rewind")],
        [
            initialized, acknowledged("offline"), failed, rewound,
            acknowledged("restore").replacing(#""success""#, with: #""error""#),
        ],
    ])
    func `a process in which a step fails is ended`(_ lines: [String]) {
        var warming = Warming()
        warming.say(lines)
        #expect(warming.hasEnded && !warming.warmup.isReady)
        #expect(warming.warmup.failure?.isEmpty == false)
        let count = warming.written.count
        warming.say([
            Self.initialized, Self.acknowledged("offline"), Self.failed, Self.rewound, Self.acknowledged("restore"),
        ])
        #expect(!warming.warmup.isReady && warming.written.count == count)
    }

    @Test func `what comes out of turn changes nothing`() {
        var warming = Warming()
        warming.say([Self.failed, Self.rewound, Self.acknowledged("restore"), #"{"type":"result","is_error":false}"#])
        #expect(warming.written.count == 1 && !warming.hasEnded)
        warming.say([Self.initialized, Self.initialized, Self.acknowledged("offline"), Self.acknowledged("offline")])
        #expect(warming.written.count == 3)
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
        warming.say([
            Self.initialized, Self.acknowledged("offline"), Self.failed, Self.rewound, Self.acknowledged("restore"),
        ])
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
