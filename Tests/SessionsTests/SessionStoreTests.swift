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
        let stores = try (0..<3).map { _ in try bench.sessions(patience: .seconds(30)) }
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
}
