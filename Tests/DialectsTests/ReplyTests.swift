@testable import Dialects
import Testing

/// What the transcripts don't show of the encoders.
@Suite struct ReplyTests {
    private static let context = ReplyContext(requestID: "req-9", created: 7)
    private static let awkward = "\"\\\n\r\t\u{0}é😀\u{2028}</script>"

    private static func events(_ pieces: [String], _ reason: StopReason = .endTurn) -> [RunEvent] {
        [.started(sessionID: "s", model: "m0"), .messageStarted(id: "msg_1", model: "m", usage: TokenUsage(input: 1))]
            + (pieces.isEmpty ? [] : [.blockStarted(.text)] + pieces.map { .text($0) } + [.blockEnded])
            + [.messageEnded(stopReason: reason, usage: TokenUsage(input: 1, output: 2)), .answered]
    }

    private static func stream(_ encoder: some StreamEncoder, _ events: [RunEvent]) -> String {
        var encoder = encoder
        var out: [UInt8] = []
        for event in events { encoder.encode(event, into: &out) }
        return String(decoding: out, as: UTF8.self)
    }

    private static func dataLines(_ stream: String) -> [String] {
        stream.split(separator: "\n").filter { $0.hasPrefix("data: ") }.map { String($0.dropFirst(6)) }
    }

    private static var withUsage: ReplyOptions {
        var options = ReplyOptions()
        options.includesUsage = true
        return options
    }

    /// The whole reply of one answer.
    private static func chat(_ answers: Answer..., options: ReplyOptions = ReplyOptions()) -> JSONValue {
        ChatCompletionsReply.whole(answers, options: options, context: context)
    }

    private static var encoders: [any StreamEncoder] {
        [
            ChatCompletionsStream(context: context, options: ReplyOptions()),
            ChatCompletionsStream(context: context, options: withUsage), MessagesStream(),
        ]
    }

    @Test(arguments: 0..<3)
    func `every event is valid JSON on one line`(_ index: Int) throws {
        let stream = Self.stream(Self.encoders[index], Self.events([Self.awkward, "b"]))
        #expect(stream.hasSuffix("\n\n"))
        #expect(!stream.contains("\r"))
        for data in Self.dataLines(stream) where data != "[DONE]" { #expect(throws: Never.self) { try json(data) } }
    }

    @Test func `text arrives as it was in every reply`() throws {
        let events = Self.events([Self.awkward, "b"])
        var answer = Answer()
        for event in events { answer.append(event) }
        let whole = Self.awkward + "b"
        #expect(
            ChatCompletionsReply.whole([answer], options: ReplyOptions(), context: Self.context)["choices"]?.arrayValue?
                .first?["message"]?[
                    "content"] == .string(whole))
        #expect(MessagesReply.whole(answer)["content"]?.arrayValue?.first?["text"] == .string(whole))
        #expect(
            DirectReply.whole(answer, context: Transcript.directContext, duration: .zero)["result"] == .string(whole))
        let openAI = try Self.dataLines(Self.stream(Self.encoders[0], events)).dropLast().map { try json($0) }
        let deltas = openAI.compactMap { $0["choices"]?.arrayValue?.first?["delta"]?["content"]?.stringValue }
        #expect(deltas.joined() == whole)
        let anthropic = try Self.dataLines(Self.stream(MessagesStream(), events)).map { try json($0) }
        #expect(anthropic.compactMap { $0["delta"]?["text"]?.stringValue }.joined() == whole)
    }

    @Test(arguments: [
        (StopReason.endTurn, "stop", "end_turn"), (.maxTokens, "length", "max_tokens"),
        (.stopSequence(nil), "stop", "stop_sequence"),
        (.toolUse, "tool_calls", "tool_use"), (.refusal, "content_filter", "refusal"), (.other("x"), "stop", "x"),
    ])
    func `whole and streamed replies end for the same reason`(
        _ reason: StopReason, _ openAI: String, _ anthropic: String
    ) {
        let events = Self.events(["a"], reason)
        var answer = Answer()
        for event in events { answer.append(event) }
        #expect(
            ChatCompletionsReply.whole([answer], options: ReplyOptions(), context: Self.context)["choices"]?.arrayValue?
                .first?["finish_reason"]
                == .string(openAI))
        #expect(Self.stream(Self.encoders[0], events).contains("\"finish_reason\":\"\(openAI)\""))
        #expect(MessagesReply.whole(answer)["stop_reason"] == .string(anthropic))
        #expect(Self.stream(MessagesStream(), events).contains("\"stop_reason\":\"\(anthropic)\""))
    }

    @Test func `a stream without text is well-formed`() {
        #expect(Self.dataLines(Self.stream(Self.encoders[0], Self.events([]))).count == 3)
        let names = Self.stream(MessagesStream(), Self.events([])).split(separator: "\n").filter {
            $0.hasPrefix("event")
        }
        #expect(names == ["event: message_start", "event: message_delta", "event: message_stop"])
    }

    @Test func `a second message_started begins nothing anew`() {
        let events = [Self.events([])[1]] + Self.events(["a"])
        #expect(Self.stream(Self.encoders[0], events) == Self.stream(Self.encoders[0], Self.events(["a"])))
        #expect(Self.stream(MessagesStream(), events) == Self.stream(MessagesStream(), Self.events(["a"])))
    }

    @Test func `usage is in the last chunk and null in the others, only when asked for`() throws {
        let with = try Self.dataLines(Self.stream(Self.encoders[1], Self.events(["a"]))).dropLast().map { try json($0) }
        #expect(with.last?["usage"]?["total_tokens"] == 3)
        #expect(with.last?["choices"] == [])
        for chunk in with.dropLast() { #expect(chunk["usage"] == .null) }
        #expect(!Self.stream(Self.encoders[0], Self.events(["a"])).contains("usage"))
    }

    @Test func `no terminal event without an answer`() {
        for encoder in Self.encoders {
            let stream = Self.stream(encoder, Self.events(["a"]).dropLast())
            #expect(!stream.contains("[DONE]"))
            #expect(!stream.contains("message_stop"))
        }
    }

    @Test(arguments: [
        ("msg_01AB", "chatcmpl-01AB"), ("other", "chatcmpl-other"), ("", "chatcmpl-req-9"), ("msg_", "chatcmpl-req-9"),
    ])
    func `a completion's id comes from the message's`(_ message: String, _ expected: String) {
        var answer = Answer()
        answer.append(.messageStarted(id: message, model: "m", usage: TokenUsage()))
        #expect(
            ChatCompletionsReply.whole([answer], options: ReplyOptions(), context: Self.context)["id"]
                == .string(expected))
    }

    @Test func `a run's reply has whole milliseconds`() {
        let reply = DirectReply.whole(
            Answer(), context: Transcript.directContext, duration: .microseconds(1_234_567))
        #expect(reply["durationMs"] == 1234)
    }
}
