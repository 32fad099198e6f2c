import Foundation
import GRDB
import Synchronization
import Testing

@testable import Sessions

@Suite struct SessionRemovalTests {
    let bench: StoreBench
    let store: SessionStore

    init() throws {
        bench = try StoreBench()
        store = try bench.sessions()
    }

    @Test func `a deleted session is gone, and is what the caller removes files of`() throws {
        #expect(try store.insertWhole(.sample("s1")))
        #expect(try store.insertWhole(.chat("s2")))
        var expected = StoredSession.sample("s1").withoutDocuments
        expected.turns = 1
        #expect(try store.delete(id: "s1", owner: "alice") == expected)
        #expect(try store.delete(id: "s1", owner: "alice") == nil)
        #expect(try store.session(id: "s1", owner: "alice") == nil)
        // The operator's way.
        #expect(try store.delete(id: "s2", owner: nil)?.id == "s2")
        #expect(try store.delete(id: "s2", owner: nil) == nil)
    }

    @Test func `all sessions of a key are deleted, as many at a time as asked for`() throws {
        for index in 0..<130 { #expect(try store.insertWhole(.sample("s\(index)"))) }
        #expect(try store.begin(.sample("begun"), limit: .max))
        #expect(try store.insertWhole(.sample("other", owner: "bob")))
        var ids: Set<String> = []
        for count in [60, 60, 11, 0] {
            let removed = try store.deleteAll(owner: "alice", limit: 60)
            #expect(removed.count == count)
            ids.formUnion(removed.map(\.id))
        }
        #expect(ids.count == 131 && ids.contains("begun"))
        #expect(try store.isKnown(ids: Array(ids)) == [])
        #expect(try store.count(owner: "bob") == 1)
    }

    @Test func `what nobody used expires, the oldest first, and what was begun long ago`() throws {
        for age in 0..<6 { #expect(try store.insertWhole(.sample("s\(age)", used: 1000 + age))) }
        #expect(try store.begin(.sample("crashed", created: 100, used: 100), limit: .max))
        #expect(try store.begin(.sample("running", created: 200, used: 200), limit: .max))
        try store.touch(id: "s0", owner: "alice", now: 2000)
        func expire(_ limit: Int) throws -> [String] {
            try store.removeExpired(unusedSince: 1004, begunBefore: 200, limit: limit).map(\.id)
        }
        #expect(try expire(2) == ["s1", "s2"])
        #expect(try expire(9) == ["s3", "crashed"])
        #expect(try expire(9) == [])
        #expect(try store.ids(owner: "alice", limit: 9) == ["s5", "s4", "s0"])
        #expect(try store.commit(id: "running", owner: "alice", turn: .sample(), now: 3000))
    }

    @Test func `expiry keeps nobody waiting for long and gives disk space back`() throws {
        let store = try bench.sessions(patience: .seconds(30))
        for index in 0..<150 { #expect(try store.insertWhole(.sample("s\(index)", used: 1, bytes: 100_000))) }
        func pages() throws -> Int {
            try store.database.read { db in try Int.fetchOne(db, sql: "PRAGMA page_count") ?? 0 }
        }
        let before = try pages()
        let other = try bench.sessions(patience: .seconds(30))
        let hasWritten = DispatchSemaphore(value: 0)
        let isDone = Atomic(false)
        let removed = Mutex(0)
        let written = Mutex<[Bool?]>([])
        onThreads(2) { [store] thread in
            if thread == 0 {
                hasWritten.wait()
                let count = try? store.removeExpired(unusedSince: 500, begunBefore: 0, limit: 1000).count
                removed.withLock { $0 = count ?? -1 }
                isDone.store(true, ordering: .sequentiallyConsistent)
            } else {
                var index = 0
                while !isDone.load(ordering: .sequentiallyConsistent) {
                    let isBegun = try? other.begin(.sample("new\(index)", used: 1000), limit: .max)
                    written.withLock { $0.append(isBegun) }
                    hasWritten.signal()
                    index += 1
                }
            }
        }
        #expect(removed.withLock { $0 } == 150)
        #expect(written.withLock { $0.allSatisfy { $0 == true } })
        #expect(try pages() < before * 9 / 10)
    }

    @Test(arguments: [(120, false), (4, true)])
    func `a transaction removes few rows, and only one that takes long`(count: Int, takesLong: Bool) throws {
        for index in 0..<count { #expect(try store.insertWhole(.sample("s\(index)"))) }
        var transactions = 0
        let removed = try store.database.removeInBatches(
            limit: count, givesSpaceBack: false,
            excess: { _ in
                transactions += 1
                return .max
            },
            { db -> Int? in
                if takesLong { usleep(15_000) }
                try db.execute(sql: "DELETE FROM session WHERE id = (SELECT id FROM session LIMIT 1)")
                return db.changesCount
            })
        #expect(removed.count == count && transactions >= (takesLong ? 4 : 3))
    }

    @Test func `no more rows are removed than are too many`() throws {
        for index in 0..<70 { #expect(try store.insertWhole(.sample("s\(index)"))) }
        func removeAll(but keeping: Int) throws -> Int {
            try store.database.removeInBatches(
                limit: .max, givesSpaceBack: false,
                excess: { db in try Int.fetchOne(db, sql: "SELECT count(*) FROM session").map { $0 - keeping } ?? 0 },
                { db -> Int? in
                    try db.execute(sql: "DELETE FROM session WHERE id = (SELECT id FROM session LIMIT 1)")
                    return db.changesCount > 0 ? 1 : nil
                }
            ).count
        }
        #expect(try removeAll(but: 70) == 0 && removeAll(but: 90) == 0)
        #expect(try removeAll(but: 9) == 61)
        #expect(try removeAll(but: -5) == 9)
        #expect(try store.count(owner: nil) == 0)
    }

    @Test func `what was removed is told even when a later step is refused`() throws {
        let store = try bench.sessions(patience: .milliseconds(100))
        for index in 0..<120 { #expect(try store.insertWhole(.sample("s\(index)", used: 1))) }
        let stranger = try bench.stranger()
        let steps = Mutex(0)
        let removed = try store.database.removeInBatches(limit: 120, givesSpaceBack: false) { db -> Int? in
            let step = steps.withLock { steps in
                steps += 1
                return steps
            }
            // The second transaction meets a disk that is full.
            if step == 60 { throw DatabaseError(resultCode: .SQLITE_FULL) }
            try db.execute(sql: "DELETE FROM session WHERE id = ?", arguments: ["s\(step)"])
            return step
        }
        #expect(!removed.isEmpty && removed.count < 60)
        #expect(try store.count(owner: "alice") == 120 - removed.count)
        try stranger.inDatabase { db in
            try db.execute(sql: "BEGIN IMMEDIATE")
            let failure = failure { () throws(SessionStoreError) in
                _ = try store.removeExpired(unusedSince: 500, begunBefore: 0, limit: 10)
            }
            #expect(failure?.isBusy == true)
            try db.execute(sql: "ROLLBACK")
        }
    }

    // MARK: Maintenance

    @Test func `files without a row are told from those with one`() throws {
        #expect(try store.insertWhole(.sample("s1")))
        #expect(try store.begin(.sample("begun"), limit: .max))
        #expect(try store.insertWhole(.chat("chat")))
        #expect(try store.isKnown(ids: ["s1", "begun", "chat", "gone", ""]) == ["s1", "begun", "chat"])
        #expect(try store.isKnown(ids: []) == [])
        #expect(try store.isKnown(cliSessionIDs: ["cli-s1", "cli-begun", "s1", ""]) == ["cli-s1", "cli-begun"])
        #expect(try store.commit(id: "s1", owner: "alice", turn: .sample(5), now: 1000))
        #expect(try store.isKnown(cliSessionIDs: ["cli-s1", "cli-5"]) == ["cli-5"])
        let many = (0..<40_000).map { "id\($0)" } + ["s1"]
        #expect(try store.isKnown(ids: many) == ["s1"])
    }

    @Test func `maintenance is due once in an interval`() throws {
        #expect(try store.claimMaintenance(now: 1000, interval: 60))
        #expect(try !store.claimMaintenance(now: 1000, interval: 60))
        #expect(try !bench.sessions().claimMaintenance(now: 1059, interval: 60))
        #expect(try bench.sessions().claimMaintenance(now: 1060, interval: 60))
        #expect(try !store.claimMaintenance(now: 1061, interval: 60))
        // A clock that was set back.
        #expect(try store.claimMaintenance(now: 500, interval: 60))
        #expect(try !store.claimMaintenance(now: 501, interval: 60))
    }

    @Test func `maintenance is one process's at a time`() throws {
        let stores = try (0..<3).map { _ in try bench.sessions(patience: .seconds(30)) }
        for round in 1...3 {
            // All find it due while another program has the lock, and then ask for the lock.
            let stranger = try bench.stranger()
            let hasLock = DispatchSemaphore(value: 0)
            Thread.detachNewThread {
                try? stranger.inDatabase { db in
                    try db.execute(sql: "BEGIN IMMEDIATE")
                    hasLock.signal()
                    usleep(150_000)
                    try db.execute(sql: "COMMIT")
                }
            }
            hasLock.wait()
            let claims = Mutex<[Bool?]>([])
            onThreads(6) { thread in
                let isOurs = try? stores[thread % 3].claimMaintenance(now: round * 100, interval: 100)
                claims.withLock { $0.append(isOurs) }
            }
            #expect(claims.withLock { $0.count { $0 == true } } == 1 && claims.withLock { $0.count { $0 == nil } } == 0)
        }
    }
}
