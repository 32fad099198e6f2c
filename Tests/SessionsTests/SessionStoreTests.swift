import Foundation
import GRDB
import Synchronization
import Testing

@testable import Sessions

/// Begins sessions until the key's limit refuses, and notes each that was accepted; as one of several processes.
private func beginUntilRefused(path: String, accepted: String, limit: Int) -> Bool {
    guard let store = try? SessionStore(path: path, patience: .seconds(30)) else { return false }
    let file = unsafe open(accepted, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    for index in 0...limit {
        let id = "\(getpid())_\(index)"
        guard let isBegun = try? store.begin(.sample(id), limit: limit) else { return false }
        guard isBegun else { return true }
        let line = Array("\(id)\n".utf8)
        unsafe write(file, line, line.count)
    }
    return false
}

@Suite struct SessionStoreTests {
    let bench: StoreBench
    let store: SessionStore

    init() throws {
        bench = try StoreBench()
        store = try bench.sessions()
    }

    // MARK: Turns

    @Test(arguments: [StoredSession.sample(bytes: 100_000), .chat(bytes: 3_000_000)])
    func `a session comes back as it was stored`(stored: StoredSession) throws {
        #expect(try store.insertWhole(stored))
        var expected = stored
        expected.turns = 1
        #expect(try bench.sessions().session(id: "s1", owner: "alice") == expected)
    }

    @Test func `a session without title comes back so`() throws {
        var stored = StoredSession.sample()
        stored.title = nil
        #expect(try store.insertWhole(stored))
        let found = try store.session(id: "s1", owner: "alice")
        #expect(found != nil && found?.title == nil)
    }

    @Test func `a turn that is whole changes its session, and tokens and cost are added`() throws {
        #expect(try store.begin(.sample(), limit: 1))
        #expect(try store.commit(id: "s1", owner: "alice", turn: .sample(1), now: 1500))
        var turn = SessionTurn.sample(2, conversation: "[2]")
        turn.title = "another"
        #expect(try store.commit(id: "s1", owner: "alice", turn: turn, now: 1400))
        let expected = StoredSession(
            id: "s1", owner: "alice", cliSessionID: "cli-2", title: "another", workingDirectory: "/turn/2",
            ownsDirectory: true, model: "claude-2", profile: .agent, settings: "{2}", conversation: "[2]",
            transcriptBytes: 200, turns: 2, inputTokens: 21, outputTokens: 42, cacheReadTokens: 63,
            cacheCreationTokens: 84, costUSD: 1.0, created: 900, lastUsed: 1500)
        #expect(try store.session(id: "s1", owner: "alice") == expected)
    }

    @Test func `title and conversation stay when a turn has none`() throws {
        #expect(try store.begin(.chat(), limit: 1))
        var turn = SessionTurn.sample(1, conversation: "[1]")
        turn.title = "first"
        #expect(try store.commit(id: "s1", owner: "alice", turn: turn, now: 1000))
        #expect(try store.commit(id: "s1", owner: "alice", turn: .sample(2), now: 1000))
        let found = try store.session(id: "s1", owner: "alice")
        #expect(found?.title == "first" && found?.conversation == "[1]")
    }

    @Test func `an id is stored once`() throws {
        #expect(try store.begin(.sample(), limit: 9))
        let failure = failure { () throws(SessionStoreError) in _ = try store.begin(.sample(owner: "bob"), limit: 9) }
        #expect(failure != nil && failure?.description.contains("alice") == false)
    }

    @Test func `a session that is only begun is neither listed nor counted nor continued`() throws {
        var session = StoredSession.sample()
        session.turns = 5
        #expect(try store.begin(session, limit: 1))
        #expect(try store.session(id: "s1", owner: "alice") == nil)
        #expect(try store.ids(owner: "alice", limit: 9) == [] && store.ids(owner: nil, limit: 9) == [])
        #expect(try store.count(owner: "alice") == 0 && store.count(owner: nil) == 0)
        #expect(try store.commit(id: "s1", owner: "alice", turn: .sample(), now: 1000))
        #expect(try store.session(id: "s1", owner: "alice")?.turns == 1)
        #expect(try store.ids(owner: "alice", limit: 9) == ["s1"] && store.ids(owner: nil, limit: 9) == ["s1"])
        #expect(try store.count(owner: "alice") == 1 && store.count(owner: nil) == 1)
    }

    @Test func `a session whose first turn failed is gone, one with a whole turn stays`() throws {
        #expect(try store.begin(.sample("failed"), limit: 2))
        #expect(try store.insertWhole(.sample("whole")))
        #expect(try store.abandonBegun(id: "failed"))
        #expect(try !store.abandonBegun(id: "failed"))
        #expect(try !store.abandonBegun(id: "whole"))
        #expect(try !store.commit(id: "failed", owner: "alice", turn: .sample(), now: 1000))
        #expect(try store.ids(owner: "alice", limit: 9) == ["whole"])
        #expect(try store.begin(.sample("next"), limit: 2))
    }

    @Test func `a turn of a session that was deleted meanwhile is not stored`() throws {
        #expect(try store.insertWhole(.sample("s1")))
        #expect(try store.begin(.sample("s2"), limit: 9))
        let other = try bench.sessions()
        #expect(try other.delete(id: "s1", owner: "alice")?.turns == 1)
        #expect(try other.delete(id: "s2", owner: "alice")?.turns == 0)
        for id in ["s1", "s2"] {
            #expect(try !store.commit(id: id, owner: "alice", turn: .sample(), now: 2000))
            #expect(try other.isKnown(ids: [id]) == [])
        }
    }

    @Test func `a turn waits for the disk, its begin and marks of use do not`() throws {
        func waitsForDisk(_ call: () throws -> Void) throws -> Bool {
            try call()
            // The connection keeps how the last transaction was written: 2 is FULL.
            return try store.database.pool.writeWithoutTransaction { db in
                try Int.fetchOne(db, sql: "PRAGMA synchronous") == 2
            }
        }
        #expect(try !waitsForDisk { _ = try store.begin(.sample(), limit: 1) })
        #expect(try waitsForDisk { _ = try store.commit(id: "s1", owner: "alice", turn: .sample(), now: 1) })
        #expect(try !waitsForDisk { try store.touch(id: "s1", owner: "alice", now: 5000) })
        #expect(try waitsForDisk { _ = try store.delete(id: "s1", owner: "alice") })
    }

    // MARK: The limit

    @Test func `a key has no more sessions than its limit, begun ones included`() throws {
        #expect(try store.insertWhole(.sample("whole")))
        #expect(try store.begin(.sample("begun"), limit: 2))
        #expect(try !store.begin(.sample("third"), limit: 2))
        #expect(try store.isKnown(ids: ["third"]) == [])
        #expect(try store.begin(.sample("other", owner: "bob"), limit: 1))
        #expect(try !store.begin(.sample("none", owner: "carol"), limit: 0))
        #expect(try !store.begin(.sample("none", owner: "carol"), limit: -1))
        _ = try store.delete(id: "whole", owner: "alice")
        #expect(try store.begin(.sample("third"), limit: 2))
    }

    @Test func `of threads that race for the last place one gets it`() throws {
        let stores = [store, try bench.sessions(patience: .seconds(30)), try bench.sessions(patience: .seconds(30))]
        for round in 1...20 {
            let results = Mutex<[Bool?]>([])
            onThreads(6) { thread in
                let isBegun = try? stores[thread % 3].begin(.sample("\(round)_\(thread)"), limit: round)
                results.withLock { $0.append(isBegun) }
            }
            #expect(results.withLock { $0.count { $0 == true } } == 1)
            #expect(results.withLock { $0.count { $0 == false } } == 5)
        }
    }

    @Test func `processes that race share the places`() async throws {
        let (path, accepted) = (bench.path, bench.directory.path + "/accepted")
        await withTaskGroup { group in
            for _ in 0..<3 {
                group.addTask {
                    await #expect(processExitsWith: .success) {
                        [path = path as String, accepted = accepted as String] in
                        guard beginUntilRefused(path: path, accepted: accepted, limit: 60) else { exit(3) }
                    }
                }
            }
        }
        try expectBegun(accepted, 60)
    }

    private func expectBegun(_ accepted: String, _ count: Int) throws {
        let ids = try String(contentsOfFile: accepted, encoding: .utf8).split(separator: "\n").map(String.init)
        #expect(ids.count == count)
        #expect(try store.isKnown(ids: ids).count == count)
        #expect(try store.deleteAll(owner: "alice", limit: .max).count == count)
    }

    // MARK: Owners and use

    @Test func `another key's session does not exist`() throws {
        #expect(try store.insertWhole(.sample()))
        #expect(try store.session(id: "s1", owner: "bob") == nil)
        #expect(try !store.commit(id: "s1", owner: "bob", turn: .sample(9), now: 9000))
        try store.touch(id: "s1", owner: "bob", now: 9000)
        #expect(try store.delete(id: "s1", owner: "bob") == nil)
        #expect(try store.deleteAll(owner: "bob", limit: 9) == [])
        #expect(try store.count(owner: "bob") == 0)
        #expect(try store.ids(owner: "bob", limit: 9) == [])
        #expect(try store.insertWhole(.sample("s0", owner: "bob", created: 1)))
        #expect(try store.ids(owner: "bob", limit: 9, after: "s1") == [])
        var expected = StoredSession.sample()
        expected.turns = 1
        #expect(try store.session(id: "s1", owner: "alice") == expected)
    }

    @Test func `reading is no use, and a mark of use never goes back`() throws {
        #expect(try store.insertWhole(.sample(used: 1000)))
        #expect(try store.session(id: "s1", owner: "alice")?.lastUsed == 1000)
        try store.touch(id: "s1", owner: "alice", now: 1500)
        try store.touch(id: "s1", owner: "alice", now: 1200)
        #expect(try store.session(id: "s1", owner: "alice")?.lastUsed == 1500)
    }

    @Test func `a mark of use is left out while another process has the lock`() throws {
        let store = try bench.sessions(patience: .milliseconds(50))
        #expect(try store.insertWhole(.sample(used: 1000)))
        try bench.stranger().inDatabase { db in
            try db.execute(sql: "BEGIN IMMEDIATE")
            try store.touch(id: "s1", owner: "alice", now: 1500)
            try db.execute(sql: "ROLLBACK")
        }
        #expect(try store.session(id: "s1", owner: "alice")?.lastUsed == 1000)
    }

    // MARK: Lists

    @Test func `sessions are listed by page, the newest first, without their documents`() throws {
        // Several in one second: the later one is the newer.
        for index in 0..<10 { #expect(try store.insertWhole(.sample("s\(index)", created: 900 + index / 3))) }
        #expect(try store.insertWhole(.sample("other", owner: "bob", created: 901)))
        let first = try store.list(owner: "alice", limit: 4, after: nil)
        #expect(first.sessions.map(\.id) == ["s9", "s8", "s7", "s6"] && first.hasMore)
        var expected = StoredSession.sample("s9", created: 903).withoutDocuments
        expected.turns = 1
        #expect(first.sessions.first == expected)
        let second = try store.list(owner: "alice", limit: 5, after: "s6")
        #expect(second.sessions.map(\.id) == ["s5", "s4", "s3", "s2", "s1"] && second.hasMore)
        let third = try store.list(owner: "alice", limit: 1, after: "s1")
        #expect(third.sessions.map(\.id) == ["s0"] && !third.hasMore)
        #expect(try store.ids(owner: nil, limit: 5) == ["s9", "s8", "s7", "s6", "other"])
        #expect(try store.ids(owner: nil, limit: 2, after: "other") == ["s5", "s4"])
    }

    @Test(arguments: ["none", "begun", "other", ""])
    func `behind a session that is not the key's there is no page`(after: String) throws {
        #expect(try store.insertWhole(.sample("s1", created: 1)))
        #expect(try store.insertWhole(.sample("other", owner: "bob")))
        #expect(try store.begin(.sample("begun"), limit: 9))
        let page = try store.list(owner: "alice", limit: 9, after: after)
        #expect(page.sessions == [] && !page.hasMore)
    }

    @Test(arguments: [(0, 0), (-5, 0), (Int.min, 0), (Int.max, 3)])
    func `any limit has its page`(limit: Int, count: Int) throws {
        for index in 0..<3 { #expect(try store.insertWhole(.sample("s\(index)"))) }
        let page = try store.list(owner: "alice", limit: limit, after: nil)
        #expect(page.sessions.count == count && page.hasMore == (count == 0))
    }

    @Test func `pages repeat nothing and leave nothing out while sessions come and go`() throws {
        // Those with an even number stay; between the pages odd ones go and new ones come, also within one second.
        for index in 0..<60 { #expect(try store.insertWhole(.sample("s\(index)", created: 900 + index / 7))) }
        let other = try bench.sessions()
        var seen: [String] = []
        var isLast = false
        while !isLast {
            let page = try store.list(owner: "alice", limit: 7, after: seen.last { $0.hasPrefix("s") })
            seen += page.sessions.map(\.id)
            isLast = !page.hasMore
            #expect(try other.insertWhole(.sample("new\(seen.count)", created: 908)))
            let last = seen.last
            for index in stride(from: 1, to: 60, by: 6) where "s\(index + seen.count % 6 / 2 * 2)" != last {
                _ = try other.delete(id: "s\(index + seen.count % 6 / 2 * 2)", owner: "alice")
            }
        }
        #expect(Set(seen).count == seen.count)
        let stayed = seen.filter { Int($0.dropFirst()).map { $0 % 2 == 0 } ?? false }
        #expect(stayed == (0..<30).map { "s\(58 - 2 * $0)" })
        #expect(!seen.contains { $0.hasPrefix("new") })
    }

    // MARK: Removal

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
