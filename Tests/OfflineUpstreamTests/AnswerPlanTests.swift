import Dialects
import Testing

@testable import OfflineUpstream

@Suite struct AnswerPlanTests {
    /// Thinking is on, so that `[[think=…]]` counts.
    private static func plan(_ prompt: String) throws -> AnswerPlan {
        try Support.plan(prompt, ["thinking": ["type": "adaptive"]])
    }

    private static func run(_ prompt: String) throws -> (steps: [AnswerStream.Step], text: String) {
        Support.stream(try plan(prompt))
    }

    private func eventNames(_ text: String) -> [Substring] {
        text.split(separator: "\n").filter { $0.hasPrefix("event: ") }.map { $0.dropFirst(7) }
    }

    /// Event names, with `start`, `delta` and `stop` for those of a content block.
    private static let sequences: [(String, String)] = [
        ("[[tokens=2]]", "message_start ping start delta delta stop message_delta message_stop"),
        ("[[say=hi]]", "message_start ping start delta stop message_delta message_stop"),
        ("[[say=]]", "message_start ping message_delta message_stop"),
        ("[[tokens=0]]", "message_start ping message_delta message_stop"),
        ("[[cut=0]]", "message_start ping"),
        ("[[cut=2]]", "message_start ping start delta delta"),
        ("[[tokens=1]][[drop=9]]", "message_start ping start delta"),
        ("[[error_after=1]]", "message_start ping start delta error"),
        ("[[think=hm]][[stall=0]]", "message_start ping start delta delta stop"),
        ("[[redacted]][[say=hi]]", "message_start ping start stop start delta stop message_delta message_stop"),
        ("[[cite=a source]]", "message_start ping start delta delta stop message_delta message_stop"),
        ("[[cite=a]][[cut=1]]", "message_start ping start delta"),
    ]

    @Test(arguments: sequences)
    func `the events come in the API's order`(prompt: String, expected: String) throws {
        let names = eventNames(try Self.run(prompt).text).map { name in
            name.hasPrefix("content_block_") ? name.dropFirst("content_block_".count) : name
        }
        #expect(names.joined(separator: " ") == expected)
    }

    @Test func `every event's data is JSON of the event's type`() throws {
        let text = try Self.run("[[think=a\"b]][[redacted]][[say=x\ny]][[cite=c]][[tool=T {\"a\":\"é\"}]][[tool=U]]")
            .text
        for event in text.split(separator: "\n\n") {
            let lines = event.split(separator: "\n")
            try #require(lines.count == 2)
            let data = try JSONParser.parse(Array(lines[1].dropFirst(6).utf8))
            #expect(data["type"]?.stringValue == String(lines[0].dropFirst(7)))
        }
    }

    @Test func `a tool's input comes in two fragments that make up the whole`() throws {
        let text = try Self.run(#"[[tool=T {"a":"é"}]]"#).text
        var input = ""
        for line in text.split(separator: "\n") where line.hasPrefix("data: ") {
            let data = try JSONParser.parse(Array(line.dropFirst(6).utf8))
            input += data["delta"]?["partial_json"]?.stringValue ?? ""
        }
        #expect(input == #"{"a":"é"}"#)
        #expect(text.contains(#""stop_reason":"tool_use""#))
    }

    @Test func `pauses stand before the first content and between pieces`() throws {
        let steps = try Self.run("[[tokens=3]][[first_ms=5]][[delay_ms=2]]").steps
        let pauses = steps.filter { if case .pause = $0 { true } else { false } }
        #expect(steps.first == .pause(.milliseconds(5)))
        #expect(pauses == [.pause(.milliseconds(5)), .pause(.milliseconds(2)), .pause(.milliseconds(2))])
        #expect(try Self.plan("[[tokens=3]][[first_ms=5]][[delay_ms=2]]").wholeDelay == .milliseconds(9))
    }

    private static let endings: [(String, AnswerStream.Step)] = [
        ("[[stall=1]]", .stall), ("[[drop=1]]", .end), ("[[cut=1]]", .end), ("[[say=a]]", .end),
    ]

    @Test(arguments: endings)
    func `a fault ends the steps in its own way`(prompt: String, last: AnswerStream.Step) throws {
        #expect(try Self.run(prompt).steps.last == last)
    }

    private static let texts: [String] = [
        "", "a", "one two three four five six", String(repeating: "x", count: 200), String(repeating: "你好", count: 60),
        "e\u{301}\r\n👨‍👩‍👧 ok ",
    ]

    @Test(arguments: texts)
    func `pieces make up the text`(text: String) {
        let pieces = TextPieces(cutting: text)
        #expect(pieces.joined == text)
        for index in 0..<pieces.count { #expect((1...52).contains(pieces[index].utf8.count)) }
    }

    @Test func `the whole message has content, stop reason and usage`() throws {
        let message = try Self.plan("[[think=t]][[tokens=2]][[tool=T {\"a\":1}]][[usage=1,2,3]]").message
        #expect(
            message["content"]?.arrayValue?.compactMap { $0["type"]?.stringValue } == ["thinking", "text", "tool_use"])
        #expect(message["content"]?.arrayValue?[1]["text"] == "tok0 tok1 ")
        #expect(message["stop_reason"] == "tool_use")
        #expect(
            message["usage"] == [
                "input_tokens": 1, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 5,
                "output_tokens_details": ["thinking_tokens": 1],
            ])
    }

    @Test func `without directives the answer says that it is canned`() throws {
        let text = try Self.plan("hello").message["content"]?.arrayValue?.first?["text"]?.stringValue ?? ""
        #expect(text.contains("canned") && text.contains("5 characters") && text.contains("ANTHROPIC_API_KEY"))
        #expect(try Self.plan("[[stop_reason=max_tokens]]").stopReason == "max_tokens")
        #expect(try Self.plan("[[echo]] 你").message["content"]?.arrayValue?.first?["text"] == "[[echo]] 你")
    }
}
