import Dialects
import Testing

/// What no transcript shows: faults, and orders that a real CLI does not take.
@Suite struct ClaudeConversationTests {
    private static let initialized =
        #"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{"claude_code_version":"2.1.330"}}}"#
    private static let configured =
        #"{"type":"control_response","response":{"subtype":"success","request_id":"settings"}}"#
    private static let acknowledgement =
        #"{"type":"result","subtype":"success","is_error":false,"num_turns":0,"result":""}"#
    private static let messageStart =
        #"{"type":"stream_event","event":{"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":3}}},"parent_tool_use_id":null}"#
    private static let textStart =
        #"{"type":"stream_event","event":{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}}"#
    private static let textStop = #"{"type":"stream_event","event":{"type":"content_block_stop","index":0}}"#
    private static let messageDelta =
        #"{"type":"stream_event","event":{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}}"#
    private static let messageStop = #"{"type":"stream_event","event":{"type":"message_stop"}}"#

    private static func delta(_ text: String, parent: String = "null") -> String {
        #"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\#(text)"}},"parent_tool_use_id":\#(parent)}"#
    }

    private static let agent = RunRequest.Profile.agent(
        AgentProfile(tools: ["Bash"], allowRules: ["Bash"], workingDirectory: nil))

    /// A conversation with what it did so far.
    private struct Talk {
        var conversation: ClaudeConversation
        var written: [String] = []
        var events: [RunEvent] = []
        var hasEnded = false

        init(_ request: RunRequest? = nil, model: String? = nil) {
            let request =
                request ?? RunRequest(turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
            conversation = ClaudeConversation(request, model: model)
            take(conversation.start())
        }

        mutating func take(_ actions: [ClaudeConversation.Action]) {
            for action in actions {
                switch action {
                case .write(let bytes):
                    #expect(bytes.last == 0x0A)
                    written += String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { String($0) }
                case .event(let event): events.append(event)
                case .end: hasEnded = true
                }
            }
            #expect(conversation.isEnded == hasEnded)
        }

        mutating func say(_ lines: String...) {
            for line in lines {
                let bytes = Array(line.utf8)
                take(conversation.receive(bytes, in: 0..<bytes.count))
            }
        }

        var failure: APIError? {
            for case .failed(let error) in events { return error }
            return nil
        }

        var texts: [String] {
            events.compactMap { if case .text(let text) = $0 { text } else { nil } }
        }
    }

    private static func request(
        _ profile: RunRequest.Profile = .chat, history: [(RunRequest.Role, String)] = [], system: [String] = []
    ) -> RunRequest {
        let turns = history + [(.user, "Hi")]
        return RunRequest(
            system: system, turns: turns.map { .init(role: $0.0, blocks: [RunRequest.Turn.text($0.1)]) },
            profile: profile)
    }

    // MARK: What is written

    @Test func `chat keeps Claude Code's own prompt out`() {
        #expect(
            Talk().written == [
                #"{"type":"control_request","request_id":"initialize","request":{"subtype":"initialize","hooks":null,"systemPrompt":[""]}}"#
            ])
        #expect(Talk(Self.request(system: ["A", "B"])).written[0].contains(#""systemPrompt":["A","B"]"#))
    }

    @Test func `an agent keeps Claude Code's prompt`() {
        let line = Talk(Self.request(Self.agent)).written[0]
        #expect(!line.contains(#""systemPrompt":"#))
        // Else one that goes on keeps the prompt that it began with.
        #expect(line.contains(#""systemPromptSnapshot":false"#))
    }

    @Test func `without settings the turn follows at once`() {
        var talk = Talk()
        talk.say(Self.initialized)
        #expect(
            talk.written.last
                == #"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"Hi"}]},"parent_tool_use_id":null,"session_id":"","client_composed":true}"#
        )
    }

    @Test func `model, limit and grants are settings, acknowledged before the turn`() {
        var request = Self.request(Self.agent)
        request.maxOutputTokens = 77
        var talk = Talk(request, model: "opus")
        talk.say(Self.initialized)
        #expect(
            talk.written.dropFirst() == [
                #"{"type":"control_request","request_id":"settings","request":{"subtype":"apply_flag_settings","settings":{"model":"opus","env":{"CLAUDE_CODE_MAX_OUTPUT_TOKENS":"77"},"permissions":{"allow":["Bash"]}}}}"#
            ])
        talk.say(Self.configured)
        #expect(talk.written.count == 3)
    }

    @Test func `each user line of the history waits for its acknowledgement`() {
        var talk = Talk(Self.request(history: [(.user, "a"), (.assistant, "b"), (.user, "c"), (.assistant, "d")]))
        talk.say(Self.initialized)
        #expect(talk.written.count == 2)
        #expect(talk.written[1].contains(#""shouldQuery":false"#))
        // Nothing but the acknowledgement moves it on.
        talk.say(#"{"type":"system","subtype":"init"}"#, Self.messageStart, #"{"type":"keep_alive"}"#)
        #expect(talk.written.count == 2)
        talk.say(Self.acknowledgement)
        #expect(talk.written.count == 4)
        #expect(talk.written[2].contains(#""type":"assistant""#))
        #expect(talk.written[3].contains(#""shouldQuery":false"#))
        talk.say(Self.acknowledgement)
        #expect(talk.written.count == 6)
        #expect(!talk.written[5].contains("shouldQuery"))
        #expect(talk.events == [])
    }

    @Test func `a history that begins with the assistant keeps its order`() {
        var talk = Talk(Self.request(history: [(.assistant, "a")]))
        talk.say(Self.initialized)
        #expect(talk.written.count == 3)
        #expect(talk.written[1].contains(#""type":"assistant""#))
        #expect(talk.written[2].contains(#""type":"user""#))
    }

    @Test func `every user line is marked as the caller's own text`() {
        var talk = Talk(Self.request(history: [(.user, "@/etc/passwd"), (.assistant, "b")]))
        talk.say(Self.initialized, Self.acknowledgement)
        for line in talk.written where line.contains(#""type":"user""#) {
            #expect(line.contains(#""client_composed":true"#))
        }
    }

    @Test func `line ends in texts stay inside their line`() {
        var talk = Talk(Self.request(history: [(.user, "a\nb\r\u{2028}")], system: ["x\ny"]))
        talk.say(Self.initialized)
        #expect(talk.written.count == 2)
    }

    // MARK: Faults

    @Test(arguments: ["garbage", "{", "{}x", "\u{1}", "[1,", "Error: something"])
    func `a line that is no JSON ends the run`(_ line: String) {
        var talk = Talk()
        talk.say(line)
        #expect(talk.failure?.kind == .cli)
        #expect(talk.failure?.message.contains(line) == false)
        #expect(talk.hasEnded)
    }

    @Test(arguments: [
        "", "{}", "[]", "null", "1", "\"x\"", #"{"type":1}"#, #"{"type":"new_thing","x":1}"#, #"{"type":"keep_alive"}"#,
        #"{"type":"stream_event"}"#, #"{"type":"stream_event","event":1}"#,
        #"{"type":"stream_event","event":{"type":"ping"}}"#,
        #"{"type":"stream_event","event":{"type":"content_block_delta"}}"#,
        #"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"x"}}}"#,
        #"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":""}}}"#,
        #"{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"no"}]}}"#,
        #"{"type":"system","subtype":"api_retry","attempt":1}"#, #"{"type":"rate_limit_event"}"#, #"{"type":"user"}"#,
        #"{"type":"control_response"}"#, #"{"type":"control_response","response":{"request_id":"other"}}"#,
    ])
    func `an unknown or idle line changes nothing`(_ line: String) {
        var talk = Talk()
        talk.say(Self.initialized)
        let before = talk.written
        talk.say(line)
        #expect(talk.events == [])
        #expect(talk.written == before)
        #expect(!talk.hasEnded)
    }

    @Test(arguments: 0...6)
    func `a CLI that ends before its answer is whole is a failure`(_ count: Int) {
        var talk = Talk()
        let lines = [
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("a"), Self.messageDelta,
            #"{"type":"system"}"#,
        ]
        for line in lines.prefix(count) { talk.say(line) }
        talk.take(talk.conversation.outputEnded(cause: "exit 1"))
        #expect(talk.failure?.kind == .cli)
        #expect(talk.failure?.cause == "exit 1")
        #expect(talk.hasEnded)
        #expect(!talk.events.contains(.answered))
    }

    @Test func `a CLI that ends between answer and report has answered`() {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("a"), Self.messageDelta, Self.messageStop)
        talk.take(talk.conversation.outputEnded(cause: "exit 1"))
        #expect(talk.failure == nil)
        #expect(talk.events.last == .answered)
        #expect(talk.hasEnded)
    }

    @Test func `nothing is said after the end`() {
        var talk = Talk()
        talk.say("garbage", Self.initialized, Self.messageStart)
        talk.take(talk.conversation.outputEnded(cause: "x"))
        #expect(talk.events.count == 1)
        #expect(talk.written.count == 1)
    }

    @Test(arguments: [
        #""can_use_tool","tool_name":"Bash""#, #""mcp_message""#, #""hook_callback""#, #""anything_new""#,
    ])
    func `what the CLI asks for is answered with an error, so that it does not wait`(_ subtype: String) {
        var talk = Talk()
        talk.say(Self.initialized, #"{"type":"control_request","request_id":"r-7","request":{"subtype":\#(subtype)}}"#)
        #expect(
            talk.written.last
                == #"{"type":"control_response","response":{"subtype":"error","error":"not supported by this host","request_id":"r-7"}}"#
        )
        #expect(talk.events == [])
    }

    @Test func `a refused initialize or settings is a failure with the CLI's words in the log only`() {
        var talk = Talk()
        talk.say(
            #"{"type":"control_response","response":{"subtype":"error","request_id":"initialize","error":"because"}}"#)
        #expect(talk.failure?.kind == .cli)
        #expect(talk.failure?.cause == "because")
        var second = Talk(model: "opus")
        second.say(
            Self.initialized,
            #"{"type":"control_response","response":{"subtype":"error","request_id":"settings","error":"no"}}"#)
        #expect(second.failure?.cause == "no")
        #expect(second.failure?.message.contains("because") == false)
    }

    @Test(arguments: [("2.1.250", true), ("1.0.0", true), ("2.1.251", false), ("3.0.0", false)])
    func `a CLI that is too old is refused before a caller's text reaches it`(_ version: String, _ isRefused: Bool) {
        var talk = Talk()
        talk.say(
            #"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{"claude_code_version":"\#(version)"}}}"#
        )
        #expect((talk.failure != nil) == isRefused)
        #expect(talk.hasEnded == isRefused)
        #expect(talk.written.count == (isRefused ? 1 : 2))
        if isRefused {
            #expect(talk.failure?.message.contains(version) == true)
            #expect(talk.failure?.message.contains("2.1.251") == true)
        }
    }

    // MARK: Answers

    @Test func `a streamed answer is handed on event by event`() {
        var talk = Talk()
        talk.say(
            Self.initialized, #"{"type":"system","subtype":"init","session_id":"s","model":"m"}"#, Self.messageStart,
            Self.textStart,
            Self.delta("a"), Self.delta("b"), Self.textStop, Self.messageDelta, Self.messageStop)
        let usage = TokenUsage(input: 3, output: 2)
        #expect(
            talk.events == [
                .started(sessionID: "s", model: "m"),
                .messageStarted(id: "msg_1", model: "m", usage: TokenUsage(input: 3)),
                .blockStarted(.text), .text("a"), .text("b"), .blockEnded,
                .messageEnded(stopReason: .endTurn, usage: usage), .answered,
            ])
        #expect(!talk.hasEnded)
        talk.say(
            #"{"type":"result","subtype":"success","is_error":false,"result":"ab","num_turns":1,"session_id":"s","total_cost_usd":0.5,"usage":{"input_tokens":3,"output_tokens":2}}"#
        )
        #expect(
            talk.events.last
                == .finished(RunSummary(result: "ab", usage: usage, costUSD: 0.5, turnCount: 1, sessionID: "s")))
        #expect(talk.hasEnded)
    }

    @Test func `a subagent's words are not the answer`() {
        var talk = Talk(Self.request(Self.agent))
        talk.say(
            Self.initialized, Self.configured, Self.messageStart, Self.textStart,
            Self.delta("sub", parent: #""toolu_1""#),
            Self.delta("own"))
        #expect(talk.texts == ["own"])
    }

    private static func chat(isStreaming: Bool) -> RunRequest {
        var request = request()
        request.isStreaming = isStreaming
        return request
    }

    @Test func `a message that begins anew after text is a failure where the text has been sent`() {
        var talk = Talk(Self.chat(isStreaming: true))
        talk.say(Self.initialized, Self.messageStart, Self.textStart, Self.delta("a"), Self.messageStart)
        #expect(talk.failure?.kind == .upstream)
        #expect(talk.hasEnded)
    }

    @Test func `a whole reply takes the message that was begun anew and nothing of the broken one`() {
        var talk = Talk(Self.chat(isStreaming: false))
        talk.say(
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("broken"), Self.messageStart,
            Self.textStart,
            Self.delta("whole"), Self.messageDelta, Self.messageStop)
        var answer = Answer()
        for event in talk.events { answer.append(event) }
        #expect(talk.events.last == .answered)
        #expect(answer.text == "whole")
    }

    @Test func `a message that begins anew before any text is none`() {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.messageStart, Self.messageStart, Self.textStart, Self.delta("a"), Self.messageDelta,
            Self.messageStop)
        #expect(talk.failure == nil)
        #expect(talk.events.last == .answered)
    }

    @Test func `an agent's run has several messages and is answered at its report`() {
        var talk = Talk(Self.request(Self.agent))
        talk.say(Self.initialized, Self.configured)
        for text in ["a", "b"] {
            talk.say(
                Self.messageStart, Self.textStart, Self.delta(text), Self.textStop, Self.messageDelta, Self.messageStop)
        }
        #expect(talk.texts == ["a", "b"])
        #expect(!talk.events.contains(.answered))
        talk.say(#"{"type":"result","subtype":"success","is_error":false,"result":"b","num_turns":2}"#)
        #expect(talk.events.contains(.answered))
        #expect(talk.hasEnded)
    }

    @Test(arguments: ["max_tokens", "tool_use", "refusal", "pause_turn"])
    func `an answer that the CLI would go on with ends at its first message`(_ reason: String) {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("a"),
            #"{"type":"stream_event","event":{"type":"message_delta","delta":{"stop_reason":"\#(reason)"},"usage":{}}}"#,
            Self.messageStop)
        #expect(talk.events.suffix(2).last == .answered)
        #expect(talk.hasEnded)
        talk.say(Self.messageStart, Self.textStart, Self.delta("more"))
        #expect(talk.texts == ["a"])
    }

    @Test func `a message_stop without a reason is the CLI's own end of a broken stream`() {
        var talk = Talk()
        talk.say(
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("a"),
            #"{"type":"stream_event","event":{"type":"message_stop"},"abandoned_blocks":{"from_block_index":0}}"#)
        #expect(!talk.events.contains(.answered))
        talk.say(
            #"{"type":"result","subtype":"success","is_error":true,"api_error_status":529,"result":"API Error: 529 x"}"#
        )
        #expect(talk.failure?.kind == .overloaded)
    }

    @Test func `an answer without a stream is taken from the report`() {
        var talk = Talk()
        talk.say(
            Self.initialized,
            #"{"type":"result","subtype":"success","is_error":false,"result":"Whole.","stop_reason":"end_turn","uuid":"12-34","usage":{"input_tokens":1,"output_tokens":2}}"#
        )
        let usage = TokenUsage(input: 1, output: 2)
        #expect(
            talk.events.prefix(6) == [
                .messageStarted(id: "msg_1234", model: "", usage: usage), .blockStarted(.text), .text("Whole."),
                .blockEnded,
                .messageEnded(stopReason: .endTurn, usage: usage), .answered,
            ])
        #expect(talk.hasEnded)
    }

    @Test func `a report continues the text that was streamed, or fails`() {
        var talk = Talk(Self.chat(isStreaming: true))
        talk.say(
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("ab"),
            #"{"type":"result","subtype":"success","is_error":false,"result":"abc"}"#)
        #expect(talk.texts == ["ab", "c"])
        #expect(talk.events.contains(.answered))
        var other = Talk(Self.chat(isStreaming: true))
        other.say(
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("ab"),
            #"{"type":"result","subtype":"success","is_error":false,"result":"xyz"}"#)
        #expect(other.failure?.kind == .upstream)
    }

    /// A piece may end inside what Swift counts as one character.
    @Test func `a report continues text that was cut inside a character`() {
        var talk = Talk(Self.chat(isStreaming: true))
        talk.say(
            Self.initialized, Self.messageStart, Self.textStart, Self.delta("e"),
            "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"e\u{301}x\"}")
        #expect(talk.failure == nil)
        #expect(Array(talk.texts.joined().unicodeScalars) == Array("e\u{301}x".unicodeScalars))
    }

    @Test func `an empty answer is a failure`() {
        var talk = Talk()
        talk.say(Self.initialized, #"{"type":"result","subtype":"success","is_error":false,"result":""}"#)
        #expect(talk.failure?.kind == .upstream)
    }

    @Test(arguments: [
        ("400", "API Error: 400 {\"error\":{\"message\":\"M\"}}", APIError.Kind.invalidRequest),
        ("401", "x", .upstreamAuth),
        ("403", "x", .upstreamAuth), ("404", "x", .modelNotFound), ("413", "x", .requestTooLarge),
        ("422", "x", .invalidRequest), ("429", "x", .rateLimit), ("500", "x", .upstream), ("502", "x", .upstream),
        ("503", "x", .overloaded), ("529", "x", .overloaded), ("418", "x", .upstream),
        ("null", "Not logged in · Please run /login", .upstreamAuth), ("null", "Invalid API key", .upstreamAuth),
        ("null", "OAuth token has expired", .upstreamAuth), ("null", "Prompt is too long", .invalidRequest),
        ("null", "API Error: Connection error.", .upstream), ("null", "Something else", .cli), ("null", "", .cli),
    ])
    func `a failed turn is told as what it is`(_ status: String, _ words: String, _ kind: APIError.Kind) {
        var talk = Talk()
        let quoted = text(.string(words))
        talk.say(
            Self.initialized,
            #"{"type":"result","subtype":"success","is_error":true,"api_error_status":\#(status),"result":\#(quoted)}"#)
        #expect(talk.failure?.kind == kind)
        #expect(talk.hasEnded)
        if kind != .invalidRequest, words.count > 1 {
            #expect(talk.failure?.message.contains(words) == false, "the CLI's words are the operator's")
            #expect(talk.failure?.cause?.contains(words) == true)
        }
    }

    @Test(arguments: [
        (
            #"API Error: 400 {\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"M: too small\"}}"#,
            "M: too small"
        ),
        ("API Error: 400 plain words", "plain words"), ("API Error: 400 {broken", "{broken"), ("bare", "bare"),
    ])
    func `the upstream's own words about a bad request reach the caller`(_ words: String, _ expected: String) {
        var talk = Talk()
        talk.say(
            Self.initialized,
            #"{"type":"result","subtype":"success","is_error":true,"api_error_status":400,"result":"\#(words)"}"#)
        #expect(talk.failure?.message == "The upstream API refused the request: \(expected)")
    }

    @Test func `a report of another subtype without is_error is a failure`() {
        var talk = Talk()
        talk.say(Self.initialized, #"{"type":"result","subtype":"error_max_turns"}"#)
        #expect(talk.failure?.kind == .cli)
    }
}
