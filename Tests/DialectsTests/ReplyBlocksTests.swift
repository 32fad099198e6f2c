import Dialects
import Testing

/// What the encoders make of calls, thoughts and several answers.
@Suite struct ReplyBlocksTests {
    private static let context = ReplyContext(requestID: "req-9", created: 7, fingerprint: "fp")
    private static let usage = TokenUsage(input: 1, output: 2)

    private static func message(_ blocks: [RunEvent], _ reason: StopReason = .endTurn, id: String = "msg_1")
        -> [RunEvent]
    {
        [.messageStarted(id: id, model: "m", usage: TokenUsage(input: 1))] + blocks
            + [.messageEnded(stopReason: reason, usage: usage)]
    }

    private static func words(_ words: String) -> [RunEvent] { [.blockStarted(.text), .text(words), .blockEnded] }

    private static func call(_ id: String, _ pieces: String...) -> [RunEvent] {
        [.blockStarted(.toolUse(id: id, name: "f\"x"))] + pieces.map { .toolInput($0) } + [.blockEnded]
    }

    private static let calls =
        message(words("I look.") + call("a", "{\"a\":", "1}") + call("b", ""), .toolUse) + [.answered]
    private static let thought =
        message([.blockStarted(.thinking), .thinking("Hm."), .signature("s"), .blockEnded] + words("Yes.")) + [
            .answered
        ]

    private static func options(_ change: (inout ReplyOptions) -> Void = { _ in }) -> ReplyOptions {
        var options = ReplyOptions()
        change(&options)
        return options
    }

    private static func stream(_ encoder: some StreamEncoder, _ events: [RunEvent]) -> String {
        var encoder = encoder
        var out: [UInt8] = []
        for event in events { encoder.encode(event, into: &out) }
        return String(decoding: out, as: UTF8.self)
    }

    private static func data(_ stream: String) throws -> [JSONValue] {
        try stream.split(separator: "\n").filter { $0.hasPrefix("data: {") }.map { try json(String($0.dropFirst(6))) }
    }

    private static func chat(_ events: [RunEvent], _ options: ReplyOptions, count: Int = 1) throws -> [JSONValue] {
        try data(stream(ChatCompletionsStream(context: context, options: options, choiceCount: count), events))
    }

    private static func deltas(_ chunks: [JSONValue]) -> [String] {
        chunks.compactMap { $0["choices"]?.arrayValue?.first?["delta"] }.map { text($0) }
    }

    private static func answer(_ events: [RunEvent]) -> Answer { events.reduce(into: Answer()) { $0.append($1) } }

    @Test func `calls are streamed by their number, and one without input has an empty object`() throws {
        let chunks = try Self.chat(Self.calls, Self.options())
        #expect(
            Self.deltas(chunks) == [
                #"{"role":"assistant","content":"","refusal":null}"#, #"{"content":"I look."}"#,
                #"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f\"x","arguments":""}}]}"#,
                #"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}"#,
                #"{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}"#,
                #"{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"f\"x","arguments":""}}]}"#,
                #"{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}"#, "{}",
            ])
        #expect(chunks.last?["choices"]?.arrayValue?.first?["finish_reason"] == "tool_calls")
        for chunk in chunks {
            #expect(chunk["service_tier"] == "default")
            #expect(chunk["system_fingerprint"] == "fp")
            #expect(chunk["id"] == "chatcmpl-1")
        }
    }

    @Test func `a message that only calls has no content`() throws {
        let events = Self.message(Self.call("a"), .toolUse) + [.answered]
        #expect(
            Self.deltas(try Self.chat(events, Self.options())).first
                == #"{"role":"assistant","content":null,"refusal":null}"#)
        let whole = ChatCompletionsReply.whole([Self.answer(events)], options: Self.options(), context: Self.context)
        let message = whole["choices"]?.arrayValue?.first?["message"]
        #expect(message?["content"] == .null)
        #expect(
            message?["tool_calls"] == [
                ["id": "a", "type": "function", "function": ["name": "f\"x", "arguments": "{}"]]
            ])
    }

    @Test func `functions are called in the older form where it was asked in`() throws {
        let options = Self.options { $0.usesLegacyFunctions = true }
        let events = Self.message(Self.call("a", "{}"), .toolUse) + [.answered]
        let chunks = try Self.chat(events, options)
        #expect(
            Self.deltas(chunks) == [
                #"{"role":"assistant","content":null,"refusal":null}"#,
                #"{"function_call":{"name":"f\"x","arguments":""}}"#, #"{"function_call":{"arguments":"{}"}}"#, "{}",
            ])
        #expect(chunks.last?["choices"]?.arrayValue?.first?["finish_reason"] == "function_call")
        let whole = ChatCompletionsReply.whole([Self.answer(events)], options: options, context: Self.context)
        let choice = whole["choices"]?.arrayValue?.first
        #expect(choice?["message"]?["function_call"] == ["name": "f\"x", "arguments": "{}"])
        #expect(choice?["message"]?["tool_calls"] == nil)
        #expect(choice?["finish_reason"] == "function_call")
    }

    @Test(arguments: [true, false])
    func `thinking is shown only where it was asked for`(_ isShown: Bool) throws {
        let options = Self.options { $0.showsThinking = isShown }
        let deltas = Self.deltas(try Self.chat(Self.thought, options))
        #expect(deltas.contains(#"{"reasoning_content":"Hm."}"#) == isShown)
        #expect(deltas.contains(#"{"content":"Yes."}"#))
        let whole = ChatCompletionsReply.whole([Self.answer(Self.thought)], options: options, context: Self.context)
        let message = whole["choices"]?.arrayValue?.first?["message"]
        #expect(message?["reasoning_content"] == (isShown ? "Hm." : nil))
        #expect(message?["content"] == "Yes.")
    }

    @Test func `several answers are choices of one reply with one sum of tokens`() throws {
        let one = Self.message(Self.words("one")) + [.answered]
        let two = Self.message(Self.words("two") + Self.call("a"), .toolUse, id: "msg_2") + [.answered]
        let options = Self.options { $0.includesUsage = true }
        let stream = Self.stream(
            ChatCompletionsStream(context: Self.context, options: options, choiceCount: 2), one + two)
        #expect(stream.split(separator: "[DONE]").count == 2)
        let chunks = try Self.data(stream)
        #expect(Set(chunks.map { $0["id"]?.stringValue }) == ["chatcmpl-1"])
        let indices = chunks.compactMap { $0["choices"]?.arrayValue?.first?["index"]?.intValue }
        #expect(indices == [0, 0, 0, 1, 1, 1, 1, 1])
        #expect(Self.deltas(chunks).filter { $0.contains("role") }.count == 2)
        #expect(chunks.last?["usage"]?["completion_tokens"] == 4)
        let whole = ChatCompletionsReply.whole(
            [Self.answer(one), Self.answer(two)], options: options, context: Self.context)
        #expect(whole["choices"]?.arrayValue?.map { $0["index"] } == [0, 1])
        #expect(whole["choices"]?.arrayValue?.map { $0["message"]?["content"] } == ["one", "two"])
        #expect(whole["usage"] == chunks.last?["usage"])
    }

    @Test func `Anthropic's blocks are numbered, and each is closed`() throws {
        let thought = try Self.data(Self.stream(MessagesStream(), Self.thought))
        #expect(
            thought.dropFirst().dropLast(2).map { text($0) } == [
                #"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
                #"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}"#,
                #"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}"#,
                #"{"type":"content_block_stop","index":0}"#,
                #"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
                #"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Yes."}}"#,
                #"{"type":"content_block_stop","index":1}"#,
            ])
        let calls = try Self.data(Self.stream(MessagesStream(), Self.calls))
        let starts = calls.filter { $0["type"] == "content_block_start" }
        #expect(starts.map { $0["index"] } == [0, 1, 2])
        #expect(
            starts[1]["content_block"] == ["type": "tool_use", "id": "a", "name": "f\"x", "input": [:]])
        #expect(calls.filter { $0["type"] == "content_block_stop" }.count == 3)
    }

    @Test func `Anthropic's whole reply has the blocks as they are`() {
        let reply = MessagesReply.whole(Self.answer(Self.calls))
        #expect(
            text(reply["content"] ?? nil)
                == #"[{"type":"text","text":"I look."},{"type":"tool_use","id":"a","name":"f\"x","input":{"a":1}},{"type":"tool_use","id":"b","name":"f\"x","input":{}}]"#
        )
        #expect(reply["stop_reason"] == "tool_use")
        #expect(reply["stop_sequence"] == .null)
        let stopped = Self.answer(Self.message(Self.words("a"), .stopSequence("END")))
        #expect(MessagesReply.whole(stopped)["stop_sequence"] == "END")
        let empty = Self.answer(Self.message([.blockStarted(.text), .blockEnded]))
        #expect(MessagesReply.whole(empty)["content"] == [])
    }

    @Test func `citations belong to their text`() throws {
        let citation: JSONValue = ["type": "char_location", "cited_text": "x"]
        let events =
            Self.message([.blockStarted(.text), .text("a"), .citation(citation), .blockEnded]) + [.answered]
        let stream = try Self.data(Self.stream(MessagesStream(), events))
        #expect(stream.contains { $0["delta"]?["type"] == "citations_delta" && $0["delta"]?["citation"] == citation })
        let block = MessagesReply.whole(Self.answer(events))["content"]?.arrayValue?.first
        #expect(block?["citations"] == [citation])
    }

    @Test func `a run of several messages is shown as one`() throws {
        let events =
            Self.message(Self.words("one") + Self.call("a"), .toolUse) + Self.message(Self.words("two"), id: "msg_2")
            + [.answered]
        let stream = try Self.data(Self.stream(MessagesStream(), events))
        #expect(stream.filter { $0["type"] == "message_start" }.count == 1)
        #expect(stream.filter { $0["type"] == "content_block_start" }.map { $0["index"] } == [0, 1, 2])
        let delta = stream.first { $0["type"] == "message_delta" }
        #expect(delta?["delta"]?["stop_reason"] == "end_turn")
        #expect(delta?["usage"]?["output_tokens"] == 4)
        let answer = Self.answer(events)
        #expect(answer.id == "msg_1")
        #expect(answer.text == "onetwo")
        #expect(answer.usage == TokenUsage(input: 2, output: 4))
    }

    @Test func `what is left of a message that broke off is not in the answer`() {
        let broken: [RunEvent] = [
            .messageStarted(id: "msg_0", model: "m", usage: TokenUsage()), .blockStarted(.text), .text("broken"),
        ]
        let answer = Self.answer(broken + Self.message(Self.words("whole")))
        #expect(answer.text == "whole")
        #expect(answer.id == "msg_1")
    }

    @Test func `text completions have their prompt before each answer where that was asked`() throws {
        let one = Self.message(Self.words("one")) + [.answered]
        let two = Self.message(Self.words("two"), .maxTokens, id: "msg_2") + [.answered]
        let whole = CompletionsReply.whole(
            [Self.answer(one), Self.answer(two)], prompts: ["P:", ""], context: Self.context)
        #expect(whole["id"] == "cmpl-1")
        #expect(whole["object"] == "text_completion")
        #expect(whole["choices"]?.arrayValue?.map { $0["text"] } == ["P:one", "two"])
        #expect(whole["choices"]?.arrayValue?.map { $0["finish_reason"] } == ["stop", "length"])
        #expect(whole["usage"]?["completion_tokens"] == 4)
        let options = Self.options { $0.includesUsage = true }
        let stream = Self.stream(
            CompletionsStream(context: Self.context, options: options, prompts: ["P:", ""]), one + two)
        #expect(stream.hasSuffix("data: [DONE]\n\n"))
        let chunks = try Self.data(stream)
        let choices = chunks.compactMap { $0["choices"]?.arrayValue?.first }
        for (index, expected) in ["P:one", "two"].enumerated() {
            let texts = choices.filter { $0["index"]?.intValue == index }.compactMap { $0["text"]?.stringValue }
            #expect(texts.joined() == expected)
        }
        #expect(chunks.last?["usage"] == whole["usage"])
        #expect(chunks.dropLast().allSatisfy { $0["usage"] == .null })
    }
}
