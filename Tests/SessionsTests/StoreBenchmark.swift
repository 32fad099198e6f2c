import Foundation
import GRDB
import Testing

@testable import Sessions

/// What calls cost with 10,000 sessions; it prints times and compares them with the smallest read there is.
@Suite(.serialized) struct StoreBenchmark {
    let bench: StoreBench
    let store: SessionStore

    init() throws {
        bench = try StoreBench()
        store = try bench.sessions()
    }

    /// Whole sessions of one key, made faster than by calls.
    private func fill(_ range: Range<Int>) throws {
        try store.database.write { db in
            for index in range {
                try db.execute(
                    literal: """
                        INSERT INTO session VALUES (\("s\(index)"), 'alice', 0, \("cli-\(index)"), 'A title of some words',
                            \("/srv/state/sessions/\(index)"), 1, 'claude-sonnet', 'agent', 70000, 3, 1, 2, 3, 4, 0.5,
                            \(1000 + index / 5), \(1000 + index), '{"system":"be brief"}', NULL)
                        """)
            }
        }
    }

    /// The median time of a call, which says whether its answer is right.
    private func time(_ repeats: Int = 41, _ call: (_ index: Int) throws -> Bool) throws -> Duration {
        var times: [Duration] = []
        for index in 0..<repeats {
            var isRight = false
            times.append(try ContinuousClock().measure { isRight = try call(index) })
            #expect(isRight)
        }
        return times.sorted()[repeats / 2]
    }

    private func measure(_ count: Int) throws -> [(name: String, time: Duration)] {
        let base = try time { _ in try store.database.read { db in try Int.fetchOne(db, sql: "SELECT 1") } == 1 }
        let first = try time { _ in
            let page = try store.list(owner: "alice", limit: 100, after: nil)
            return page.sessions.count == 100 && page.sessions.first?.id == "s\(count - 1)" && page.hasMore
        }
        let last = try time { _ in
            let page = try store.list(owner: "alice", limit: 100, after: "s50")
            return page.sessions.count == 50 && !page.hasMore
        }
        let all = try time { _ in try store.list(owner: nil, limit: 100, after: "s150").sessions.count == 100 }
        let one = try time { index in try store.session(id: "s\(index)", owner: "alice")?.turns == 3 }
        let ofKey = try time { _ in try store.count(owner: "alice") == count }
        let ofAll = try time { _ in try store.count(owner: nil) == count }
        let refused = try time { _ in try !store.begin(.sample("none"), limit: count) }
        let begin = try time { index in try store.begin(.sample("new\(index)", created: 9999), limit: 1_000_000) }
        let commit = try time { index in
            try store.commit(id: "new\(index)", owner: "alice", turn: .sample(), now: 9999)
        }
        let touch = try time { index in
            try store.touch(id: "new\(index)", owner: "alice", now: 10_000)
            return true
        }
        let delete = try time { index in try store.delete(id: "new\(index)", owner: "alice")?.lastUsed == 10_000 }
        let nothing = try time { _ in
            try store.removeExpired(unusedSince: 1000, begunBefore: 0, limit: 100) == []
        }
        return [
            ("SELECT 1", base), ("list, first page of 100", first), ("list, last page", last),
            ("list, all keys", all), ("session", one), ("count of a key", ofKey), ("count of all", ofAll),
            ("begin, refused", refused), ("begin", begin), ("commit", commit), ("touch", touch), ("delete", delete),
            ("nothing expired", nothing),
        ]
    }

    @Test func `calls with ten thousand sessions`() throws {
        try fill(0..<300)
        let few = try measure(300)
        try fill(300..<10_000)
        let many = try measure(10_000)
        print("10,000 sessions of one key    microseconds   x SELECT 1   x the same with 300")
        for (small, large) in zip(few, many) {
            let columns = [
                String(format: "%14.0f", large.time / .microseconds(1)),
                String(format: "%12.1f", large.time / many[0].time),
                String(format: "%21.1f", large.time / small.time),
            ]
            print(large.name.padding(toLength: 28, withPad: " ", startingAt: 0) + columns.joined())
        }
        var removed = 0
        var longest: Duration = .zero
        let whole = try ContinuousClock().measure {
            while removed < 10_000 {
                var step = 0
                longest = max(
                    longest,
                    try ContinuousClock().measure {
                        step = try store.removeExpired(unusedSince: .max, begunBefore: 0, limit: 50).count
                    })
                #expect(step > 0)
                removed += step
            }
        }
        print("removal of all: \(whole), the longest of 50: \(longest)")
        #expect(removed == 10_000)
    }
}
