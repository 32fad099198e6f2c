import Testing

@testable import Dialects

/// What a message is read as where the CLI writes it wrongly; that it is read rightly is in `TranscriptTests`.
@Suite struct MessageReaderTests {
    private static let start = #"{"type":"message_start","message":{"id":"msg_1","model":"m"}}"#
    private static let stop = #"{"type":"content_block_stop"}"#
    private static let textBlock = #"{"type":"content_block_start","content_block":{"type":"text"}}"#
    private static let thought = #"{"type":"content_block_start","content_block":{"type":"thinking"}}"#
    private static let call =
        #"{"type":"content_block_start","content_block":{"type":"tool_use","id":"toolu_1","name":"f"}}"#
    private static let reason = #"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#
    private static let end = #"{"type":"message_stop"}"#

    private static func delta(_ type: String, _ key: String) -> String {
        #"{"type":"content_block_delta","delta":{"type":"\#(type)","\#(key)":"x"}}"#
    }

    private static func word(_ event: RunEvent) -> String {
        switch event {
        case .messageStarted: "message"
        case .blockStarted(.text): "text("
        case .blockStarted(.thinking): "thinking("
        case .blockStarted(.redactedThinking): "redacted("
        case .blockStarted(.toolUse): "call("
        case .blockEnded: ")"
        case .text(let piece), .thinking(let piece), .signature(let piece), .toolInput(let piece): piece
        case .messageEnded: "end"
        case .answered: "answered"
        default: "?"
        }
    }

    private static func read(_ events: [String]) throws -> String {
        var reader = MessageReader(
            RunRequest(turns: [RunRequest.Turn(role: .user, blocks: [RunRequest.Turn.text("x")])], isStreaming: true))
        var read: [RunEvent] = []
        for event in events { _ = reader.receive(try json(event), into: &read) }
        return read.map(word).joined(separator: " ")
    }

    @Test(
        arguments: [
            ([textBlock, delta("text_delta", "text"), stop, reason, end], ""),
            ([start, delta("text_delta", "text"), textBlock, stop, reason, end], "message text( ) end answered"),
            ([start, textBlock, delta("text_delta", "text"), reason, end], "message text( x ) end answered"),
            (
                [start, textBlock, delta("text_delta", "text"), thought, stop, stop, reason, end],
                "message text( x ) thinking( ) end answered"
            ),
            (
                [
                    start, thought, delta("text_delta", "text"), delta("input_json_delta", "partial_json"),
                    delta("thinking_delta", "thinking"), delta("signature_delta", "signature"), stop, reason, end,
                ], "message thinking( x x ) end answered"
            ),
            (
                [
                    start, call, delta("thinking_delta", "thinking"), delta("signature_delta", "signature"),
                    delta("input_json_delta", "partial_json"), stop, reason, end,
                ], "message call( x ) end answered"
            ),
            ([start, call, stop, call, delta("input_json_delta", "partial_json"), stop], "message call( )"),
            (
                [
                    start,
                    #"{"type":"content_block_start","content_block":{"type":"redacted_thinking","data":"y"}}"#,
                    delta("thinking_delta", "thinking"), stop,
                ], "message redacted( )"
            ),
            ([start, textBlock, stop, reason, end, textBlock, stop], "message text( ) end answered"),
            ([start, #"{"type":"message_delta","delta":{"stop_reason":""}}"#, end], ""),
        ] as [([String], String)])
    func `what is handed on is well formed`(_ events: [String], _ expected: String) throws {
        #expect(try Self.read(events) == expected)
    }

    @Test func `a structured answer of which no message was seen has an id and a beginning`() throws {
        var request = RunRequest(turns: [])
        request.outputSchema = [:]
        var reader = MessageReader(request)
        let events = reader.structuredAnswer(["a": 1], id: "msg_2", usage: TokenUsage())
        #expect(
            events == [
                .messageStarted(id: "msg_2", model: "", usage: TokenUsage()), .blockStarted(.text), .text(#"{"a":1}"#),
                .blockEnded, .messageEnded(stopReason: .endTurn, usage: TokenUsage()), .answered,
            ])
    }

    @Test func `an answer that goes on without a stream closes what is open`() throws {
        var reader = MessageReader(RunRequest(turns: [], isStreaming: true))
        var events: [RunEvent] = []
        for event in [Self.start, Self.thought] { _ = reader.receive(try json(event), into: &events) }
        let rest = reader.rest(of: "y", id: "msg_2", stopReason: nil, usage: TokenUsage())
        events += try #require(rest)
        #expect(events.map(Self.word).joined(separator: " ") == "message thinking( ) text( y ) end answered")
    }
}
