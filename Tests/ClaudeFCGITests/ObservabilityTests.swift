import Dialects
import Foundation
import Synchronization
import Testing

@testable import ClaudeFCGI

@Suite struct RedactorTests {
    private static let redactor = Redactor(
        environment: [
            "ANTHROPIC_API_KEY": "sk-ant-123456", "MY_TOKEN": "token-abcdef", "DB_PASSWORD": "hunter2hunter2",
            "X_SECRET_Y": "s3cr3t-value",
            "SHORT_KEY": "abc", "HOME": "/home/someone", "LONGER_KEY": "sk-ant-123456-longer",
        ], keys: ["proxy-key", ""])

    @Test(arguments: [
        ("nothing here", "nothing here"), ("", ""), ("key sk-ant-123456!", "key [redacted]!"),
        ("token-abcdef", "[redacted]"),
        ("a hunter2hunter2 b s3cr3t-value", "a [redacted] b [redacted]"),
        ("proxy-key proxy-key", "[redacted] [redacted]"),
        ("sk-ant-123456-longer", "[redacted]"), ("/home/someone abc", "/home/someone abc"),
    ])
    func `the service's secrets are taken out`(_ text: String, _ expected: String) {
        #expect(Self.redactor.redacted(text) == expected)
    }
}

@Suite struct TimestampTests {
    @Test func `a time is RFC 3339 in UTC with milliseconds`() throws {
        for _ in 0..<200 {
            let before = Date()
            let text = Timestamp.now()
            #expect(text.count == 24)
            #expect(text.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/) != nil)
            let date = try Date(text, strategy: .iso8601.year().month().day().time(includingFractionalSeconds: true))
            #expect(abs(date.timeIntervalSince(before)) < 5)
        }
    }
}

@Suite struct MillisecondsTests {
    @Test(arguments: [
        (Duration.zero, 0.0), (.milliseconds(1), 1), (.microseconds(1500), 1.5), (.nanoseconds(1_234_567), 1.234),
        (.seconds(3600), 3_600_000),
        (.milliseconds(-5), -5),
    ])
    func `milliseconds have three decimals`(_ duration: Duration, _ expected: Double) {
        #expect(duration.milliseconds == expected)
    }
}
