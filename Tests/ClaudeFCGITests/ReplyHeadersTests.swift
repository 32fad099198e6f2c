import Dialects
import Testing

@testable import ClaudeFCGI

@Suite struct ReplyHeadersTests {
    private static func headers(_ dialect: Dialect, ignored: [String] = []) -> [String] {
        let now = ContinuousClock.now
        let headers = ReplyHeaders(
            dialect: dialect, requestID: "req-1", started: now, ignored: ignored, sessionID: nil,
            rateLimits: RateLimitStore())
        return headers.all(now + .milliseconds(1234)).map { "\($0.name): \($0.value)" }
    }

    @Test(
        arguments: [
            (.openAI, ["openai-processing-ms: 1234", "openai-version: 2020-10-01"]),
            (.anthropic, ["request-id: req-1"]), (.direct, []),
        ] as [(Dialect, [String])])
    func `each vendor's clients find its headers`(_ dialect: Dialect, _ expected: [String]) {
        #expect(Self.headers(dialect) == expected)
    }

    @Test func `what was ignored is named as far as a header can carry it`() {
        #expect(
            Self.headers(.direct, ignored: ["seed", "", "a b", "x\r\nEvil: 1", "é", "a,b", "user"]) == [
                "X-Claude-Ignored: seed, user"
            ])
        let many = (0..<60).map { "p\($0)" }
        #expect(Self.headers(.direct, ignored: many).first?.split(separator: ",").count == 50)
    }
}

@Suite struct RateLimitStoreTests {
    private static func headers(_ dialect: Dialect, _ info: JSONValue) -> [String] {
        let store = RateLimitStore()
        if let limit = RateLimit(info) { store.note(limit) }
        return store.headers(dialect).map { "\($0.name): \($0.value)" }
    }

    @Test(arguments: Dialect.allCases)
    func `an account without limits has no headers`(_ dialect: Dialect) {
        #expect(Self.headers(dialect, [:]) == [])
    }

    private static func info(_ utilization: String, status: String = "allowed") -> JSONValue {
        [
            "status": .string(status), "rateLimitType": "five_hour", "utilization": .number(utilization),
            "resetsAt": 1_700_000_000,
        ]
    }

    @Test(arguments: [("0", "100"), ("0.9", "10"), ("0.999", "0"), ("1", "0"), ("1.5", "0")])
    func `OpenAI's clients see what is left in hundredths`(_ utilization: String, _ left: String) {
        #expect(
            Self.headers(.openAI, Self.info(utilization)) == [
                "x-ratelimit-limit-requests: 100", "x-ratelimit-remaining-requests: \(left)",
                "x-ratelimit-reset-requests: 0s",
            ])
    }

    @Test func `Anthropic's clients see the unified limit`() {
        #expect(
            Self.headers(.anthropic, Self.info("0.5")) == [
                "anthropic-ratelimit-unified-status: allowed",
                "anthropic-ratelimit-unified-representative-claim: five_hour",
                "anthropic-ratelimit-unified-reset: 1700000000", "anthropic-ratelimit-unified-utilization: 0.5",
            ])
        #expect(
            Self.headers(.anthropic, ["status": "rejected"]) == ["anthropic-ratelimit-unified-status: rejected"])
    }

    @Test func `the CLI's words end no header`() {
        let headers = Self.headers(.anthropic, Self.info("0.5", status: "x\r\nEvil: 1"))
        #expect(!headers.contains { $0.contains("Evil") })
        #expect(headers.count == 3)
    }

    @Test func `the newest word counts`() {
        let store = RateLimitStore()
        for status in ["allowed", "rejected"] {
            if let limit = RateLimit(["status": .string(status)]) { store.note(limit) }
        }
        #expect(store.headers(.anthropic).map(\.value) == ["rejected"])
    }
}
