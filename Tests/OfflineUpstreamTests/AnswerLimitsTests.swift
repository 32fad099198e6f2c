import Dialects
import Testing

@testable import OfflineUpstream

@Suite struct AnswerLimitsTests {
    /// Prompt, stop sequences, content, stop reason with the sequence, output tokens.
    private static let stops: [(String, JSONValue, String, String, Int)] = [
        ("[[say=one END two]]", ["END"], "text=one ", "stop_sequence=END", 1),
        ("[[say=one two]]", ["END"], "text=one two", "end_turn", 1),
        ("[[say=END]]", ["END"], "", "stop_sequence=END", 0),
        ("[[say=one END]][[tool=T {}]]", ["END"], "text=one ", "stop_sequence=END", 1),
        ("[[tokens=5]]", ["tok3"], "text=tok0 tok1 tok2 ", "stop_sequence=tok3", 3),
        ("[[tokens=5]]", ["1 tok2"], "text=tok0 tok", "stop_sequence=1 tok2", 2),
        ("[[tokens=5]]", ["tok4", "tok2", "k3"], "text=tok0 tok1 ", "stop_sequence=tok2", 2),
        ("[[tokens=5]]", ["k1 tok2", "k1"], "text=tok0 to", "stop_sequence=k1", 2),
        ("[[tokens=5]]", [], "text=tok0 tok1 tok2 tok3 tok4 ", "end_turn", 5),
        ("[[say=naïve 你好吗]]", ["好"], "text=naïve 你", "stop_sequence=好", 1),
        ("[[tokens=3]][[ignore_stop]]", ["tok1"], "text=tok0 tok1 tok2 ", "end_turn", 3),
        ("[[tokens=3]][[stop_reason=refusal]]", ["tok1"], "text=tok0 ", "refusal", 1),
        ("[[say=a]][[cite=bEND]][[tool=T]]", ["END"], "text=a cite=b", "stop_sequence=END", 2),
        ("[[tool=T {\"a\":\"END\"}]]", ["END"], #"T{"a":"END"}"#, "tool_use", 2),
    ]

    @Test(arguments: stops)
    func `a stop sequence ends the answer before it`(
        prompt: String, sequences: JSONValue, content: String, ending: String, tokens: Int
    ) throws {
        let plan = try Support.plan(prompt, ["stop_sequences": sequences])
        let message = plan.message
        #expect(Support.summary(message) == content)
        let parts = ending.split(separator: "=").map(String.init)
        #expect(message["stop_reason"]?.stringValue == parts[0])
        #expect(message["stop_sequence"] == (parts.count > 1 ? .string(parts[1]) : .null))
        #expect(message["usage"]?["output_tokens"]?.intValue == tokens)
        let delta = try #require(try Support.events(Support.stream(plan).text).first { $0["type"] == "message_delta" })
        #expect(delta["delta"]?["stop_reason"] == message["stop_reason"])
        #expect(delta["delta"]?["stop_sequence"] == message["stop_sequence"])
        #expect(delta["usage"] == message["usage"])
    }

    /// Prompt, `max_tokens`, content, stop reason, output tokens.
    private static let maxima: [(String, Int, String, String, Int)] = [
        ("[[tokens=5]]", 5, "text=tok0 tok1 tok2 tok3 tok4 ", "end_turn", 5),
        ("[[tokens=5]]", 3, "text=tok0 tok1 tok2 ", "max_tokens", 3),
        ("[[tokens=5]][[stop_reason=end_turn]]", 3, "text=tok0 tok1 tok2 ", "end_turn", 3),
        ("[[say=one two three four five six]]", 1, "text=one two three ", "max_tokens", 1),
        ("[[tokens=2]][[tool=T {\"a\":1}]]", 4, #"text=tok0 tok1  T{"a":1}"#, "tool_use", 4),
        ("[[tokens=2]][[tool=T {\"a\":1}]]", 3, "text=tok0 tok1  T{}", "max_tokens", 3),
        ("[[tokens=2]][[tool=T {\"a\":1}]]", 2, "text=tok0 tok1 ", "max_tokens", 2),
        ("[[tool=T]][[tool=U]]", 2, "T{}", "max_tokens", 2),
        ("[[think=hm]][[tokens=2]]", 1, "think=hm", "max_tokens", 1),
        ("[[think=hm]][[redacted]][[tokens=2]]", 3, "think=hm redacted text=tok0 ", "max_tokens", 3),
    ]

    @Test(arguments: maxima)
    func `max_tokens cuts the answer`(
        prompt: String, limit: Int, content: String, reason: String, tokens: Int
    ) throws {
        let members: JSONValue = ["max_tokens": .integer(limit), "thinking": ["type": "adaptive"]]
        let message = try Support.plan(prompt, members).message
        #expect(Support.summary(message) == content)
        #expect(message["stop_reason"]?.stringValue == reason)
        #expect(message["usage"]?["output_tokens"]?.intValue == tokens)
    }

    @Test func `a stop sequence beyond max_tokens is not reached`() throws {
        let message = try Support.plan("[[tokens=5]]", ["max_tokens": 3, "stop_sequences": ["tok3"]]).message
        #expect(message["stop_reason"] == "max_tokens")
    }

    @Test func `a tool call that is cut streams half of its input`() throws {
        let text = Support.stream(try Support.plan(#"[[tool=T {"a":12}]]"#, ["max_tokens": 1])).text
        let input = try Support.events(text).compactMap { $0["delta"]?["partial_json"]?.stringValue }.joined()
        #expect(input == #"{"a""#)
    }

    /// `thinking`, content, and the thinking tokens.
    private static let thinking: [(JSONValue, String, Int?)] = [
        (nil, "text=x", nil), (["type": "disabled"], "text=x", nil),
        (["type": "adaptive"], "think=hm redacted text=x", 2),
        (["type": "adaptive", "display": "updates"], "think=hm redacted text=x", 2),
        (["type": "enabled", "budget_tokens": 1024], "think=hm redacted text=x", 2),
        (["type": "adaptive", "display": "omitted"], "think= redacted text=x", 2),
    ]

    @Test(arguments: thinking)
    func `there is thinking where the request wants it`(thinking: JSONValue, content: String, tokens: Int?) throws {
        let plan = try Support.plan("[[think=hm]][[redacted]][[say=x]]", ["max_tokens": 2000, "thinking": thinking])
        #expect(Support.summary(plan.message) == content)
        let usage = plan.message["usage"]
        #expect(usage?["output_tokens_details"]?["thinking_tokens"]?.intValue == tokens)
        let deltas = try Support.events(Support.stream(plan).text).compactMap { $0["delta"]?["type"]?.stringValue }
        #expect(deltas.contains("signature_delta") == content.hasPrefix("think="))
        #expect(deltas.contains("thinking_delta") == content.hasPrefix("think=hm"))
    }

    @Test func `a citation comes in a delta of its own, after the text`() throws {
        let plan = try Support.plan("[[say=It says]] [[cite=né]]")
        let citation: JSONValue = [
            "type": "char_location", "cited_text": "né", "document_index": 0, "document_title": nil,
            "start_char_index": 0, "end_char_index": 2,
        ]
        #expect(plan.message["content"]?.arrayValue?.last == ["type": "text", "text": "né", "citations": [citation]])
        let events = try Support.events(Support.stream(plan).text).filter { $0["index"] == 1 }
        #expect(events.first?["content_block"] == ["type": "text", "text": "", "citations": []])
        #expect(events[1]["delta"] == ["type": "text_delta", "text": "né"])
        #expect(events[2]["delta"] == ["type": "citations_delta", "citation": citation])
    }
}
