import Dialects
import Testing

@testable import OfflineUpstream

@Suite struct DirectivesTests {
    private static let texts: [(String, Directives.Text?)] = [
        ("", nil), ("plain text", nil), ("[[say=hello]]", .say("hello")),
        ("a [[say=two\nlines ]] b", .say("two\nlines ")),
        ("[[say=]]", .say("")), ("[[say=a]b]]", .say("a]b")), ("[[echo]]", .echo), ("[[tokens=12]]", .tokens(12)),
        ("[[say=a]][[say=b]]", .say("b")), ("[[[say=x]]]", .say("x")), ("[[say=naïve 你好]]", .say("naïve 你好")),
        ("[[wiki link]]", nil), ("[[saying=x]]", nil), ("[[tokens=many]]", nil), ("[[tokens=-1]]", nil),
        ("[[tokens=99999999999]]", nil), ("[[say=never closed", nil), ("[[say", nil), ("[[", nil), ("[[echo=x]]", nil),
        ("[[echo", nil), ("[[echo]", nil), ("[[say]]", nil), ("[[wiki]] [[say=later]]", .say("later")),
        ("[[tokens=x [[say=inside]]", .say("inside")),
    ]

    @Test(arguments: texts)
    func `text directives are found and all else is text`(prompt: String, expected: Directives.Text?) {
        #expect(Directives(prompt: prompt).text == expected)
    }

    @Test func `a tool's input may hold brackets, braces and quotes`() throws {
        let input = #"{"a":[[1]],"b":"}]] \" {","c":{}}"#
        let directives = Directives(prompt: "x [[tool=Bash \(input)]] y [[tool=Read]] [[tool=mcp__c__f {}]]")
        let expected = try JSONParser.parse(Array(input.utf8))
        #expect(directives.tools.map(\.name) == ["Bash", "Read", "mcp__c__f"])
        #expect(directives.tools[0].inputText == input)
        #expect(directives.tools[0].input == expected)
        #expect(directives.tools[1].inputText == "{}")
    }

    @Test(arguments: [
        "[[tool=]]", "[[tool=Bash [1]]]", "[[tool=Bash {\"a\"}]]", "[[tool={}]]", "[[tool=Bash {\"a\":1]]",
    ])
    func `a tool without a name or an object is text`(prompt: String) {
        #expect(Directives(prompt: prompt).tools.isEmpty)
    }

    private static let failures: [(String, Directives.Failure?)] = [
        ("[[error=529]]", .init(status: 529, recurrence: .init(times: nil, spelling: "error=529"))),
        ("[[error=429*2]]", .init(status: 429, recurrence: .init(times: 2, spelling: "error=429*2"))),
        ("[[error=200]]", nil), ("[[error=600]]", nil), ("[[error=429*]]", nil), ("[[error=429*1*1]]", nil),
        ("[[error=]]", nil),
    ]

    @Test(arguments: failures)
    func `an error names its status and how often`(prompt: String, expected: Directives.Failure?) {
        #expect(Directives(prompt: prompt).failure == expected)
    }

    private static let faults: [(String, Directives.Fault?)] = [
        ("[[stall=0]]", .init(kind: .stall, afterPieces: 0, recurrence: .init(times: nil, spelling: "stall=0"))),
        ("[[cut=3*1]]", .init(kind: .cut, afterPieces: 3, recurrence: .init(times: 1, spelling: "cut=3*1"))),
        (
            "[[error_after=2]]",
            .init(kind: .error, afterPieces: 2, recurrence: .init(times: nil, spelling: "error_after=2"))
        ),
        ("[[drop=1]]", .init(kind: .drop, afterPieces: 1, recurrence: .init(times: nil, spelling: "drop=1"))),
        ("[[cut]]", nil), ("[[error=2]]", nil), ("[[cut=x]]", nil), ("[[cut=1*x]]", nil),
    ]

    @Test(arguments: faults)
    func `a fault names its place`(prompt: String, expected: Directives.Fault?) {
        #expect(Directives(prompt: prompt).fault == expected)
    }

    private static let flags: [(String, Bool, Bool)] = [
        ("[[ignore_stop]]", true, false), ("[[redacted]]", false, true), ("[[ignore_stop]][[redacted]]", true, true),
        ("[[ignore_stop=1]]", false, false), ("[[redacted=x]]", false, false), ("[[redacted", false, false),
    ]

    @Test(arguments: flags)
    func `a flag has no value`(prompt: String, ignoresStop: Bool, redacts: Bool) {
        let directives = Directives(prompt: prompt)
        #expect(directives.ignoresStop == ignoresStop)
        #expect(directives.redacts == redacts)
    }

    private static let outputs: [(String, JSONValue?)] = [
        (#"[[json={"a":[[1]],"b":"]]"}]]"#, ["a": [[1]], "b": "]]"]), ("[[json={}]]", [:]), ("[[json=[1]]]", nil),
        ("[[json=]]", nil), ("[[json]]", nil), (#"[[json={"a"}]]"#, nil),
        (#"[[json={"a":1}][[json={"b":2}]]"#, ["b": 2]),
    ]

    @Test(arguments: outputs)
    func `a structured output is an object`(prompt: String, expected: JSONValue?) {
        #expect(Directives(prompt: prompt).output == expected)
    }

    private static let limits: [(String, String?)] = [
        ("0", "allowed"), ("0.79", "allowed"), ("0.8", "allowed_warning"), ("0.99", "allowed_warning"),
        ("1", "rejected"), ("1.5", "rejected"), ("-1", nil), ("11", nil), ("nan", nil), ("much", nil), ("", nil),
    ]

    @Test(arguments: limits)
    func `a rate limit warns from four fifths on`(value: String, status: String?) {
        #expect(Directives(prompt: "[[rate_limit=\(value)]]").rateLimit?.status == status)
    }

    @Test func `what comes later adds up or is replaced`() {
        let directives = Directives(
            prompt: #"[[then=a]][[then=b]][[then_tool=X {"a":"]]"}]][[then_tool=Y]][[json_bad=2]][[cite=c]]"#)
        #expect(directives.laterText == "b")
        #expect(directives.laterTools.map(\.name) == ["X", "Y"])
        #expect(directives.laterTools.first?.input == ["a": "]]"])
        #expect(directives.badOutputs == 2)
        #expect(directives.citation == "c")
        #expect(directives.tools.isEmpty && directives.text == nil)
    }

    @Test func `the others are read too`() {
        let directives = Directives(
            prompt: "[[think=hm]][[stop_reason=max_tokens]][[first_ms=5]][[delay_ms=7]][[usage=1,2,3]]")
        #expect(directives.thinking == "hm")
        #expect(directives.stopReason == "max_tokens")
        #expect(directives.firstDelay == .milliseconds(5))
        #expect(directives.pieceDelay == .milliseconds(7))
        #expect(directives.usage == .init(input: 1, cacheRead: 2, cacheCreation: 3))
        #expect(Directives(prompt: "[[usage=9]]").usage == .init(input: 9))
        #expect(Directives(prompt: "[[usage=1,-2]]").usage == nil)
    }

    @Test(.timeLimit(.minutes(1))) func `a long text of brackets costs no more than its length`() {
        _ = Directives(prompt: String(repeating: "[[x", count: 1_000_000))
        _ = Directives(prompt: String(repeating: "[", count: 3_000_000) + "]]")
    }
}
