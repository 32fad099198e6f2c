import Testing

@testable import ClaudeFCGI

@Suite struct DeltaBurstTests {
    /// Reads so far apart, of so many lines each; whether the last one left a burst.
    private static func isOn(
        _ burst: inout DeltaBurst, reads: Int, apart: Duration, lines: Int = 1, from start: ContinuousClock.Instant
    ) -> Bool {
        for number in 0..<reads { burst.read(lines: lines, at: start + apart * number) }
        return burst.isOn
    }

    @Test(arguments: [Duration.microseconds(150), .microseconds(400), .milliseconds(5), .seconds(1)])
    func `a stream that is no burst never waits`(_ apart: Duration) {
        var burst = DeltaBurst()
        #expect(!Self.isOn(&burst, reads: 1000, apart: apart, from: .now))
    }

    @Test func `neither does the beginning of an answer`() {
        var burst = DeltaBurst()
        #expect(!Self.isOn(&burst, reads: 16, apart: .microseconds(10), from: .now))
    }

    @Test func `a burst waits for as long as that brings several lines at once`() {
        var burst = DeltaBurst()
        let start = ContinuousClock.now
        #expect(Self.isOn(&burst, reads: 17, apart: .microseconds(10), from: start))
        #expect(Self.isOn(&burst, reads: 50, apart: .microseconds(300), lines: 2, from: start + .milliseconds(1)))
        let end = start + .milliseconds(100)
        burst.read(lines: 1, at: end)
        #expect(!burst.isOn)
        // Not at once again.
        #expect(!Self.isOn(&burst, reads: 15, apart: .microseconds(10), from: end))
        #expect(Self.isOn(&burst, reads: 1, apart: .zero, from: end + .microseconds(150)))
    }

    @Test func `a pause amid quick deltas begins the count anew`() {
        var burst = DeltaBurst()
        let start = ContinuousClock.now
        #expect(!Self.isOn(&burst, reads: 16, apart: .microseconds(10), from: start))
        #expect(!Self.isOn(&burst, reads: 16, apart: .microseconds(10), from: start + .milliseconds(1)))
        #expect(Self.isOn(&burst, reads: 1, apart: .zero, from: start + .milliseconds(1) + .microseconds(160)))
    }
}
