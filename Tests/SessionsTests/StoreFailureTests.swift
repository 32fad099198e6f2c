import Foundation
import GRDB
import Synchronization
import Testing

@testable import Sessions

/// Commits turns on several threads and notes each that was acknowledged, until its own process is killed.
private func commitUntilKilled(path: String, acknowledged: String, after: Int) {
    guard let store = try? SessionStore(path: path) else { return }
    let file = unsafe open(acknowledged, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    let count = Atomic(0)
    onThreads(4) { thread in
        for index in 0... {
            let id = "\(thread)_\(index)"
            guard (try? store.begin(.chat(id), limit: .max)) == true else { return }
            for turn in 1...20 {
                guard (try? store.commit(id: id, owner: "alice", turn: turnOfLoop(turn), now: turn)) == true else {
                    return
                }
                let line = Array("\(id) \(turn)\n".utf8)
                unsafe write(file, line, line.count)
                if count.add(1, ordering: .relaxed).newValue == after { kill(getpid(), SIGKILL) }
            }
        }
    }
}

private func turnOfLoop(_ number: Int) -> SessionTurn {
    .sample(number, conversation: "[" + String(repeating: "\(number),", count: 3000) + "]")
}

/// The stores of sessions and runs with a file that fails.
@Suite struct StoreFailureTests {
    /// One call of a store.
    typealias Call = @Sendable (Stores) throws(SessionStoreError) -> Void

    /// What shares one process's connections.
    struct Stores {
        let database: SessionDatabase
        let sessions: SessionStore
        let runs: RunStore

        init(path: String, patience: Duration = .seconds(2)) throws(SessionStoreError) {
            database = try SessionDatabase(path: path, patience: patience)
            sessions = SessionStore(database: database)
            runs = RunStore(database: database)
        }

        /// One session and one run that goes on.
        func fill() throws {
            #expect(try sessions.insertWhole(.sample(bytes: 10_000)))
            try runs.insert(.sample(state: .running))
        }
    }

    /// Calls that store something, with texts so large that the file has to grow.
    static let growing: [(name: String, call: Call)] = [
        (
            "begin",
            { s throws(SessionStoreError) in _ = try s.sessions.begin(.chat("big", bytes: 100_000), limit: .max) }
        ),
        (
            "commit",
            { s throws(SessionStoreError) in
                let text = String(repeating: "x", count: 100_000)
                let turn = SessionTurn.sample(1, conversation: text)
                _ = try s.sessions.commit(id: "s1", owner: "alice", turn: turn, now: 1)
            }
        ),
        (
            "insert",
            { s throws(SessionStoreError) in
                var run = StoredRun.sample("big")
                run.progress = String(repeating: "x", count: 100_000)
                try s.runs.insert(run)
            }
        ),
        (
            "finish",
            { s throws(SessionStoreError) in
                let text = String(repeating: "x", count: 100_000)
                _ = try s.runs.finish(id: "run_1", .completed(result: text), now: 1)
            }
        ),
    ]

    /// Every other call that writes.
    static let others: [(name: String, call: Call)] = [
        ("abandonBegun", { s throws(SessionStoreError) in _ = try s.sessions.abandonBegun(id: "begun") }),
        ("delete", { s throws(SessionStoreError) in _ = try s.sessions.delete(id: "s1", owner: nil) }),
        ("deleteAll", { s throws(SessionStoreError) in _ = try s.sessions.deleteAll(owner: "alice", limit: 9) }),
        (
            "removeExpired",
            { s throws(SessionStoreError) in
                _ = try s.sessions.removeExpired(unusedSince: 9999, begunBefore: 0, limit: 9)
            }
        ),
        ("claim", { s throws(SessionStoreError) in _ = try s.sessions.claimMaintenance(now: 9999, interval: 1) }),
        (
            "update",
            { s throws(SessionStoreError) in
                _ = try s.runs.update(id: "run_1", state: .running, progress: "{9}", now: 1)
            }
        ),
        ("cancel", { s throws(SessionStoreError) in _ = try s.runs.requestCancel(id: "run_1", owner: "alice") }),
        (
            "endAbandoned",
            { s throws(SessionStoreError) in
                _ = try s.runs.endAbandoned(now: 1, isAlive: { _, _ in false }, end: { _ in .failed(error: "{}") })
            }
        ),
        ("delete run", { s throws(SessionStoreError) in _ = try s.runs.delete(id: "run_1", owner: "alice") }),
    ]

    /// Calls that read.
    static let reading: [(name: String, call: Call)] = [
        ("session", { s throws(SessionStoreError) in _ = try s.sessions.session(id: "s1", owner: "alice") }),
        ("list", { s throws(SessionStoreError) in _ = try s.sessions.list(owner: nil, limit: 99, after: nil) }),
        ("count", { s throws(SessionStoreError) in _ = try s.sessions.count(owner: nil) }),
        ("run", { s throws(SessionStoreError) in _ = try s.runs.read(id: "run_1", owner: "alice", now: 1) }),
    ]

    let bench: StoreBench

    init() throws { bench = try StoreBench() }

    /// What is read, and marked where it can be, while nothing can be written.
    private func expectReadable(_ stores: Stores) throws {
        #expect(try stores.sessions.session(id: "s1", owner: "alice")?.turns == 1)
        #expect(try stores.sessions.ids(owner: nil, limit: 9) == ["s1"])
        #expect(try stores.sessions.count(owner: "alice") == 1)
        #expect(try stores.sessions.isKnown(ids: ["s1"]) == ["s1"])
        #expect(try !stores.runs.isCancelRequested(id: "run_1"))
        try stores.sessions.touch(id: "s1", owner: "alice", now: 5000)
        #expect(try stores.runs.read(id: "run_1", owner: "alice", now: 5000)?.lastUsed == 1000)
        #expect(try stores.sessions.session(id: "s1", owner: "alice")?.lastUsed == 1000)
    }

    // MARK: One process

    @Test func `the stores of one process share two connections`() throws {
        let before = try descriptors()
        let database = try SessionDatabase(path: bench.path)
        let (sessions, runs, responses) = (
            SessionStore(database: database), RunStore(database: database), ResponseStore(database: database)
        )
        #expect(try sessions.insertWhole(.sample()))
        try runs.insert(.sample())
        try responses.insert(.sample())
        #expect(try sessions.count(owner: "alice") == 1 && responses.count(owner: "alice") == 1)
        #expect(try runs.read(id: "run_1", owner: "alice", now: 1) == .sample())
        // A connection has the file and its log; the index of the log is the process's.
        #expect(try descriptors() - before <= 5)
    }

    private func descriptors() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count {
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/" + $0))?
                .hasPrefix(bench.path) == true
        }
    }

    @Test func `threads of two processes use all stores at the same time`() throws {
        let processes = try (0..<2).map { _ in try Stores(path: bench.path, patience: .seconds(30)) }
        let failures = Mutex<[String]>([])
        onThreads(8) { thread in
            let stores = processes[thread % 2]
            let owner = "key\(thread)"
            let failure = failure { () throws(SessionStoreError) in
                for index in 0..<15 {
                    let id = "\(thread)_\(index)"
                    guard try stores.sessions.begin(.sample(id, owner: owner), limit: 15) else { continue }
                    try stores.runs.insert(.sample(id, owner: owner))
                    try stores.runs.update(id: id, state: .running, progress: "{}", now: 1)
                    _ = try stores.sessions.commit(id: id, owner: owner, turn: .sample(), now: 1)
                    _ = try stores.runs.finish(id: id, .completed(result: "{}"), now: 1)
                    _ = try stores.sessions.list(owner: owner, limit: 5, after: nil)
                }
            }
            if let failure { failures.withLock { $0.append("\(failure)") } }
        }
        #expect(failures.withLock { $0 } == [])
        #expect(try processes[0].sessions.count(owner: nil) == 120)
        #expect(try processes[0].runs.removeExpired(unusedSince: 1001, limit: 200).count == 120)
    }

    // MARK: Crashes

    @Test func `a process killed while it commits loses no turn that was acknowledged, and has no half of one`()
        async throws
    {
        let (path, acknowledged) = (bench.path, bench.directory.path + "/acknowledged")
        await #expect(processExitsWith: .signal(SIGKILL)) {
            [path = path as String, acknowledged = acknowledged as String] in
            commitUntilKilled(path: path, acknowledged: acknowledged, after: 300)
        }
        try expectAll(acknowledged)
    }

    private func expectAll(_ acknowledged: String) throws {
        var turns: [String: Int] = [:]
        for line in try String(contentsOfFile: acknowledged, encoding: .utf8).split(separator: "\n") {
            let fields = line.split(separator: " ")
            turns[String(fields[0])] = Int(fields[1])
        }
        #expect(turns.values.reduce(0, +) >= 300)
        let store = try bench.sessions()
        for (id, last) in turns {
            let found = try #require(try store.session(id: id, owner: "alice"))
            #expect(found.turns == last || found.turns == last + 1)
            #expect(found.conversation == turnOfLoop(found.turns).conversation)
            #expect(found.transcriptBytes == 100 * found.turns && found.inputTokens == 10 * found.turns)
        }
        #expect(try store.database.read { db in try String.fetchOne(db, sql: "PRAGMA integrity_check") } == "ok")
        // Begun ones that the crash left make room again.
        _ = try store.removeExpired(unusedSince: 0, begunBefore: .max, limit: .max)
        #expect(try store.count(owner: "alice") == store.list(owner: nil, limit: .max, after: nil).sessions.count)
    }

    // MARK: Files that fail

    @Test func `on a full disk a call fails as full, and what was stored is still there`() throws {
        let stores = try Stores(path: bench.path)
        try stores.fill()
        try stores.database.write { db in
            let pages = try Int.fetchOne(db, sql: "PRAGMA page_count") ?? 0
            try db.execute(sql: "PRAGMA max_page_count = \(pages + 2)")
        }
        for (name, call) in Self.growing {
            let failure = failure { () throws(SessionStoreError) in try call(stores) }
            #expect(failure?.isFull == true, "\(name): \(String(describing: failure))")
        }
        #expect(try stores.sessions.isKnown(ids: ["big"]) == [] && stores.runs.isKnown(ids: ["big"]) == [])
        #expect(try stores.sessions.session(id: "s1", owner: "alice")?.turns == 1)
        #expect(try stores.runs.read(id: "run_1", owner: "alice", now: 1)?.state == .running)
        // Room can be made.
        #expect(try stores.sessions.delete(id: "s1", owner: "alice") != nil)
        #expect(try stores.sessions.insertWhole(.sample("s2", bytes: 5000)))
    }

    @Test func `while another process keeps the lock, a call that writes fails as busy, and reads go on`() throws {
        let stores = try Stores(path: bench.path, patience: .milliseconds(30))
        try stores.fill()
        try bench.stranger().inDatabase { db in
            try db.execute(sql: "BEGIN IMMEDIATE")
            for (name, call) in Self.growing + Self.others {
                let failure = failure { () throws(SessionStoreError) in try call(stores) }
                #expect(failure?.isBusy == true, "\(name): \(String(describing: failure))")
            }
            try expectReadable(stores)
            try db.execute(sql: "ROLLBACK")
        }
        #expect(try stores.sessions.commit(id: "s1", owner: "alice", turn: .sample(), now: 1))
    }

    @Test func `a file that can't be written fails as read-only, and reads go on`() throws {
        let stores = try Stores(path: bench.path)
        try stores.fill()
        try stores.database.write { db in try db.execute(sql: "PRAGMA query_only = ON") }
        for (name, call) in Self.growing + Self.others where name != "abandonBegun" {
            let failure = failure { () throws(SessionStoreError) in try call(stores) }
            #expect(failure?.isReadOnly == true, "\(name): \(String(describing: failure))")
        }
        try expectReadable(stores)
    }

    @Test func `a damaged file fails as corrupt`() throws {
        do {
            let stores = try Stores(path: bench.path)
            for index in 0..<100 { #expect(try stores.sessions.insertWhole(.sample("s\(index)", bytes: 3000))) }
            for index in 0..<100 { try stores.runs.insert(.sample("run_\(index)")) }
        }
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: bench.path))
        let size = try file.seekToEnd()
        for offset in stride(from: UInt64(4096), to: size, by: 4096) {
            try file.seek(toOffset: offset)
            try file.write(contentsOf: Data(repeating: 0xA5, count: 2000))
        }
        try file.close()
        for (name, call) in Self.growing + Self.reading {
            let failure = failure { () throws(SessionStoreError) in try call(try Stores(path: bench.path)) }
            #expect(failure?.isCorrupt == true, "\(name): \(String(describing: failure))")
        }
    }

    // MARK: Values that can't be read

    /// Lets any value into a table's columns, as a damaged file may have.
    private func loosen(_ table: String) throws {
        try bench.stranger().write { db in
            let columns = try db.columns(in: table).map(\.name).joined(separator: ", ")
            try db.execute(
                sql: """
                    CREATE TABLE loose (\(columns)); INSERT INTO loose SELECT \(columns) FROM \(table);
                    DROP TABLE \(table); ALTER TABLE loose RENAME TO \(table);
                    """)
        }
    }

    @Test(arguments: [
        "cli_session_id", "title", "working_directory", "owns_directory", "model", "profile", "transcript_bytes",
        "turns", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cost_usd", "created",
        "last_used", "settings", "conversation",
    ])
    func `a damaged column of a session is an error that names it, and the session can be removed`(
        column: String
    ) throws {
        let store = try bench.sessions()
        #expect(try store.insertWhole(.sample()))
        #expect(try store.insertWhole(.sample("s2")))
        try loosen("session")
        try bench.stranger().write { db in try db.execute(sql: "UPDATE session SET \(column) = x'FFA0' WHERE id = 's1'")
        }
        let expected = SessionStoreError.unreadable(path: bench.path, column: column)
        #expect(failure { () throws(SessionStoreError) in _ = try store.session(id: "s1", owner: "alice") } == expected)
        let isDocument = ["settings", "conversation"].contains(column)
        let ofList = failure { () throws(SessionStoreError) in _ = try store.list(owner: nil, limit: 9, after: nil) }
        #expect(ofList == (isDocument ? nil : expected))
        if column == "created" {
            let ofPage = failure { () throws(SessionStoreError) in
                _ = try store.list(owner: nil, limit: 9, after: "s1")
            }
            #expect(ofPage == expected)
        }
        let removed = try store.deleteAll(owner: "alice", limit: 9)
        #expect(removed.map(\.id) == (isDocument ? ["s1", "s2"] : ["s2"]))
        #expect(try store.isKnown(ids: ["s1", "s2"]) == [])
    }

    @Test func `a session that can't be read is gone when it is deleted`() throws {
        let store = try bench.sessions()
        #expect(try store.insertWhole(.sample()))
        try bench.stranger().write { db in try db.execute(sql: "UPDATE session SET profile = 'later'") }
        let failure = failure { () throws(SessionStoreError) in _ = try store.delete(id: "s1", owner: "alice") }
        #expect(failure == .unreadable(path: bench.path, column: "profile"))
        #expect(try store.isKnown(ids: ["s1"]) == [])
    }

    @Test(arguments: [
        "session_id", "state", "created", "last_used", "runner_pid", "runner_start_time", "cancel_requested",
        "progress", "result", "error",
    ])
    func `a damaged column of a run is an error that names it`(column: String) throws {
        let store = try bench.runs()
        try store.insert(.sample())
        try loosen("run")
        try bench.stranger().write { db in try db.execute(sql: "UPDATE run SET \(column) = x'FFA0'") }
        let failure = failure { () throws(SessionStoreError) in _ = try store.read(id: "run_1", owner: "alice", now: 1)
        }
        #expect(failure == .unreadable(path: bench.path, column: column))
    }
}
