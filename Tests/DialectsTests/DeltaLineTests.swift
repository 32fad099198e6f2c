@testable import Dialects
import Testing

/// What is read without a tree must be what the tree would have said.
@Suite struct DeltaLineTests {
    /// The piece by way of the tree; nil where the line is none of the answer's.
    private static func parsed(_ bytes: [UInt8]) -> (kind: DeltaLine.Kind, piece: String)? {
        guard let line = try? JSONParser.parse(bytes), line["type"] == "stream_event",
            line["event"]?["type"] == "content_block_delta", line["parent_tool_use_id"]?.isNull ?? true,
            let delta = line["event"]?["delta"]
        else { return nil }
        switch delta["type"] {
        case "text_delta": return delta["text"]?.stringValue.map { (.text, $0) }
        case "thinking_delta": return delta["thinking"]?.stringValue.map { (.thinking, $0) }
        case "input_json_delta": return delta["partial_json"]?.stringValue.map { (.toolInput, $0) }
        default: return nil
        }
    }

    private static func read(_ bytes: [UInt8]) -> DeltaLine? { DeltaLine(bytes, in: 0..<bytes.count) }

    private static func line(_ delta: String, tail: String = #","session_id":"s","parent_tool_use_id":null"#) -> [UInt8]
    {
        Array(
            #"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":\#(delta)}\#(tail)}"#.utf8)
    }

    /// Every recorded piece goes the short way, or the speed that it is for is lost without a word.
    @Test(arguments: Transcript.requests + Transcript.lives)
    func `all recorded pieces are read without a tree`(_ transcript: Transcript) throws {
        for text in try transcript.lines("cli.stdout.jsonl") {
            let bytes = Array(text.utf8)
            let expected = Self.parsed(bytes)
            let found = Self.read(bytes)
            #expect(found?.kind == expected?.kind && found?.piece == expected?.piece, "\(text.prefix(200))")
        }
    }

    @Test(
        arguments: [
            ("", "a"), (#","uuid":"x""#, "a"), (#","n":12,"m":0"#, "a"), (#","parent_tool_use_id":null"#, "a"),
            (#","parent_tool_use_id":"toolu_1""#, nil), (#","parent_tool_use_id":null,"parent_tool_use_id":"t""#, nil),
            (#","type":"result""#, nil), (#","event":null"#, nil),
            // Left to the parser, which takes it.
            (#", "uuid":"x""#, nil), (#","uuid":"é""#, nil), (#","x":{}"#, nil), (#","x":true"#, nil),
            (#","n":01"#, nil),
        ] as [(String, String?)])
    func `what stands behind the piece decides`(_ tail: String, _ piece: String?) {
        #expect(Self.read(Self.line(#"{"type":"text_delta","text":"a"}"#, tail: tail))?.piece == piece)
    }

    @Test(
        arguments: [
            ("", ""), ("a", "a"), (#"\n\"\\\/\t"#, "\n\"\\/\t"), (#"\u00e9é\ud83d\ude00"#, "éé😀"),
            (#"\ud83d"#, "\u{FFFD}"), ("\u{2028}", "\u{2028}"), (#"\x"#, nil), ("\n", nil), ("\u{7F}", "\u{7F}"),
        ] as [(String, String?)])
    func `a piece is decoded as the parser does it`(_ text: String, _ piece: String?) {
        let bytes = Self.line(#"{"type":"text_delta","text":"\#(text)"}"#)
        #expect(Self.read(bytes)?.piece == piece)
        #expect(Self.parsed(bytes)?.piece == piece)
    }

    @Test func `a piece that is no UTF-8 is none`() {
        var bytes = Self.line(#"{"type":"text_delta","text":"ab"}"#)
        bytes.replace(Array("ab".utf8), with: [0xC3, 0x28])
        #expect(Self.read(bytes) == nil && Self.parsed(bytes) == nil)
    }

    /// Whatever bytes are changed: a line that is taken is one that the parser takes, with the same meaning.
    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func `a damaged line is never misread`(_ seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let deltas = [
            #"{"type":"text_delta","text":"a\n\"b"}"#, #"{"type":"thinking_delta","thinking":"é"}"#,
            #"{"type":"input_json_delta","partial_json":"{\"a\":"}"#,
        ]
        let alphabet = Array(#"{}[]",:\0123nulltrue aeé"#.utf8) + [0, 0x0A, 0x7F, 0xC3, 0xFF]
        for _ in 0..<3000 {
            let delta = deltas[Int.random(in: 0..<deltas.count, using: &generator)]
            var bytes = Self.line(delta, tail: #","session_id":"s","parent_tool_use_id":null,"uuid":"u","n":10"#)
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                let byte = alphabet[Int.random(in: 0..<alphabet.count, using: &generator)]
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: bytes[place] = byte
                case 1: bytes.insert(byte, at: place)
                default: bytes.remove(at: place)
                }
            }
            guard let found = Self.read(bytes) else { continue }
            let expected = Self.parsed(bytes)
            #expect(
                found.kind == expected?.kind && found.piece == expected?.piece,
                "\(String(decoding: bytes, as: UTF8.self))")
        }
    }
}
