import Dialects
import Testing

@Suite struct ClaudeVersionTests {
    @Test(
        arguments: [
            ("2.1.330", "2.1.330"), ("2.1.330 (Claude Code)", "2.1.330"), ("10.20.30\n", "10.20.30"),
            ("2.1.330-beta", "2.1.330"),
            ("0.0.0", "0.0.0"), ("", nil), ("2.1", nil), ("2.1.", nil), ("2.1.3.4", nil), ("v2.1.330", nil),
            ("claude", nil),
            ("2..3", nil), ("99999999999999999999.0.0", nil), ("-1.2.3", nil),
        ] as [(String, String?)])
    func `a version is read from what the CLI prints`(_ text: String, _ expected: String?) {
        #expect(ClaudeVersion(text)?.description == expected)
    }

    @Test(arguments: [
        ("2.1.247", "2.1.248"), ("2.1.99", "2.1.248"), ("2.0.999", "2.1.0"), ("1.9.9", "2.0.0"), ("2.9.0", "2.10.0"),
    ])
    func `versions are ordered by number, not by text`(_ older: String, _ newer: String) throws {
        let (older, newer) = (try #require(ClaudeVersion(older)), try #require(ClaudeVersion(newer)))
        #expect(older < newer)
        #expect(!(newer < older))
    }
}
