import Foundation
import GRDB
import Synchronization
import Testing

@testable import Sessions

/// Inserts responses on several threads and notes each that was acknowledged, until its own process is killed.
private func insertUntilKilled(path: String, acknowledged: String, after: Int) {
    guard let store = try? ResponseStore(path: path) else { return }
    let file = unsafe open(acknowledged, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    let count = Atomic(0)
    onThreads(4) { thread in
        for index in 0... {
            let id = "resp_\(thread)_\(index)"
            guard (try? store.insert(.sample(id, bytes: 5000))) != nil else { return }
            let line = Array("\(id)\n".utf8)
            unsafe write(file, line, line.count)
            if count.add(1, ordering: .relaxed).newValue == after { kill(getpid(), SIGKILL) }
        }
    }
}

/// What one of several responders does that start at once.
private func openAndInsert(path: String, count: Int) -> Bool {
    guard let store = try? ResponseStore(path: path, patience: .seconds(30)) else { return false }
    return (0..<count).allSatisfy { index in (try? store.insert(.sample("\(getpid())_\(index)"))) != nil }
}

@Suite struct SessionDatabaseTests {
    let bench: StoreBench

    init() throws { bench = try StoreBench() }

    // MARK: How it is opened

    @Test func `a new file and its companions are readable by their owner only`() throws {
        let store = try bench.store()
        try store.insert(.sample())
        for suffix in ["", "-wal", "-shm"] {
            let attributes = try FileManager.default.attributesOfItem(atPath: bench.path + suffix)
            #expect(attributes[.posixPermissions] as? Int == 0o600, "\(suffix)")
        }
    }

    @Test func `what is acknowledged is on the disk, and caches are small`() throws {
        let database = try bench.store().database
        let written = try database.write { db in
            try settings(db, ["synchronous", "journal_mode", "cache_size", "secure_delete", "auto_vacuum"])
        }
        #expect(written == ["2", "wal", "-512", "1", "2"])
        // A mark of use is not waited for; the write after it is.
        #expect(try database.write(reachesDisk: false) { db in try settings(db, ["synchronous"]) } == ["1"])
        #expect(try database.write { db in try settings(db, ["synchronous"]) } == ["2"])
        #expect(try database.read { db in try settings(db, ["cache_size", "busy_timeout"]) } == ["-512", "2000"])
    }

    private func settings(_ db: Database, _ names: [String]) throws -> [String?] {
        try names.map { try String.fetchOne(db, sql: "PRAGMA \($0)") }
    }

    @Test func `a transaction that fails leaves nothing`() throws {
        struct Stop: Error {}
        let store = try bench.store()
        #expect(throws: SessionStoreError.self) {
            try store.database.write { db in
                try db.execute(sql: "INSERT INTO grdb_migrations VALUES ('half')")
                throw Stop()
            }
        }
        #expect(bench.refusal() == nil)
    }

    // MARK: Several processes and threads

    @Test func `what one process writes every other reads`() throws {
        let (one, two) = (try bench.store(), try bench.store())
        for index in 0..<50 {
            try one.insert(.sample("resp_\(index)", state: .inProgress))
            #expect(try two.requestCancel(id: "resp_\(index)", owner: "alice")?.cancelRequested == true)
            #expect(try one.isCancelRequested(id: "resp_\(index)"))
        }
        #expect(try two.count(owner: "alice") == 50)
    }

    @Test func `threads of two processes write at the same time`() throws {
        let stores = [try bench.store(patience: .seconds(30)), try bench.store(patience: .seconds(30))]
        let failures = Mutex<[String]>([])
        onThreads(16) { thread in
            let store = stores[thread % 2]
            for index in 0..<20 {
                let id = "resp_\(thread)_\(index)"
                let failure = failure { () throws(SessionStoreError) in
                    try store.insert(.sample(id, owner: "key\(thread)", state: .inProgress, bytes: 2000))
                    _ = try store.isCancelRequested(id: id)
                    try store.update(id: id, state: .completed, response: "{}", conversation: "[]", now: 1001)
                    _ = try store.read(id: id, owner: "key\(thread)", now: 1002 + index)
                    try store.removeOldest(owner: "key\(thread)", keeping: 10)
                }
                if let failure { failures.withLock { $0.append("\(failure)") } }
            }
        }
        #expect(failures.withLock { $0 } == [])
        for thread in 0..<16 { #expect(try stores[0].count(owner: "key\(thread)") == 10) }
    }

    @Test func `processes that start at once make one database`() async throws {
        let path = bench.path
        await withTaskGroup { group in
            for _ in 0..<4 {
                group.addTask {
                    await #expect(processExitsWith: .success) { [path = path as String] in
                        guard openAndInsert(path: path, count: 10) else { exit(3) }
                    }
                }
            }
        }
        try expectCount(40)
    }

    @Test func `threads that open a new file at once make one database`() throws {
        let path = bench.path
        let failures = Mutex<[String]>([])
        onThreads(8) { _ in
            let failure = failure { () throws(SessionStoreError) in
                _ = try ResponseStore(path: path, patience: .seconds(30))
            }
            if let failure { failures.withLock { $0.append("\(failure)") } }
        }
        #expect(failures.withLock { $0 } == [])
    }

    // MARK: Crashes

    @Test func `a process killed while it writes loses nothing acknowledged`() async throws {
        let path = bench.path
        let acknowledged = bench.directory.path + "/acknowledged"
        await #expect(processExitsWith: .signal(SIGKILL)) {
            [path = path as String, acknowledged = acknowledged as String] in
            insertUntilKilled(path: path, acknowledged: acknowledged, after: 300)
        }
        try expectAll(acknowledged)
    }

    private func expectCount(_ count: Int) throws { #expect(try bench.store().count(owner: "alice") == count) }

    private func expectAll(_ acknowledged: String) throws {
        let ids = try String(contentsOfFile: acknowledged, encoding: .utf8).split(separator: "\n").map(String.init)
        #expect(ids.count >= 300)
        let store = try bench.store()
        for id in ids {
            #expect(try store.read(id: id, owner: "alice", now: 1000) == .sample(id, bytes: 5000))
        }
        #expect(try store.database.read { db in try String.fetchOne(db, sql: "PRAGMA integrity_check") } == "ok")
    }

    @Test func `a log that was left behind is read again`() throws {
        // A copy of the files while they are open is what a crash leaves.
        let store = try bench.store()
        for index in 0..<30 { try store.insert(.sample("resp_\(index)")) }
        let after = try StoreBench()
        for suffix in ["", "-wal"] {
            try FileManager.default.copyItem(atPath: bench.path + suffix, toPath: after.path + suffix)
        }
        #expect(try after.store().count(owner: "alice") == 30)
    }

    // MARK: A file that can't be used

    @Test func `a file that is no database is refused`() throws {
        try Data(repeating: 0x41, count: 9000).write(to: URL(fileURLWithPath: bench.path))
        let refusal = try #require(bench.refusal())
        #expect(refusal.isCorrupt && !refusal.isBusy && !refusal.isFull && !refusal.isReadOnly)
        #expect(refusal.description.contains(bench.path) && refusal.description.contains("move"))
    }

    @Test func `a damaged database is an error, not a crash`() throws {
        do {
            let store = try bench.store()
            for index in 0..<200 { try store.insert(.sample("resp_\(index)", bytes: 3000)) }
        }
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: bench.path))
        let size = try file.seekToEnd()
        for offset in stride(from: UInt64(4096), to: size, by: 4096) {
            try file.seek(toOffset: offset)
            try file.write(contentsOf: Data(repeating: 0xA5, count: 2000))
        }
        try file.close()
        let failure = failure { () throws(SessionStoreError) in
            let store = try bench.store()
            for index in 0..<200 { _ = try store.read(id: "resp_\(index)", owner: "alice", now: 1000) }
            _ = try store.removeExpired(unusedSince: 5000, limit: 1000)
        }
        #expect(failure?.isCorrupt == true, "\(String(describing: failure))")
    }

    @Test func `a value that this version does not know is an error without the row's contents`() throws {
        let store = try bench.store()
        try store.insert(.sample())
        try bench.stranger().write { db in
            try db.execute(sql: "UPDATE response SET state = 'paused', runner_pid = 9999999999")
        }
        let failure = failure { () throws(SessionStoreError) in
            _ = try store.read(id: "resp_1", owner: "alice", now: 1000)
        }
        #expect(failure == .unreadable(path: bench.path, column: "state"))
        try bench.stranger().write { db in try db.execute(sql: "UPDATE response SET state = 'queued'") }
        let second = self.failureOfReading(store)
        #expect(second == .unreadable(path: bench.path, column: "runner_pid"))
        #expect("\(second, default: "nil")".contains("alice") == false)
    }

    private func failureOfReading(_ store: ResponseStore) -> SessionStoreError? {
        failure { () throws(SessionStoreError) in _ = try store.read(id: "resp_1", owner: "alice", now: 1000) }
    }

    @Test func `a directory that can't be written is refused`() throws {
        let file = bench.directory.path + "/file"
        try Data().write(to: URL(fileURLWithPath: file))
        let refusal = failure { () throws(SessionStoreError) in _ = try ResponseStore(path: file + "/sessions.db") }
        #expect(refusal == .cannotOpen(path: file + "/sessions.db", errno: ENOTDIR))
        #expect(refusal?.description.contains("STATE_DIR") == true)
    }

    @Test func `a directory that is not there is refused`() {
        let path = bench.directory.path + "/none/sessions.db"
        let refusal = failure { () throws(SessionStoreError) in _ = try ResponseStore(path: path) }
        #expect(refusal == .cannotOpen(path: path, errno: ENOENT))
    }

    @Test(.disabled(if: getuid() == 0, "root may write everywhere"))
    func `a database in a directory without the right to write is refused as read-only`() throws {
        _ = try bench.store()
        unsafe chmod(bench.directory.path, 0o500)
        defer { unsafe chmod(bench.directory.path, 0o700) }
        #expect(bench.refusal()?.isReadOnly == true)
    }

    @Test func `a directory in place of the file is refused`() throws {
        try FileManager.default.createDirectory(atPath: bench.path, withIntermediateDirectories: false)
        #expect(bench.refusal() == .sqlite(path: bench.path, code: 14, message: "unable to open database file"))
    }

    // MARK: A disk that is full

    @Test func `a full disk is an error, and what was stored is still there`() throws {
        let store = try bench.store()
        try store.insert(.sample("resp_1", bytes: 10_000))
        try store.database.write { db in
            let pages = try Int.fetchOne(db, sql: "PRAGMA page_count") ?? 0
            try db.execute(sql: "PRAGMA max_page_count = \(pages + 2)")
        }
        let failure = failure { () throws(SessionStoreError) in try store.insert(.sample("resp_2", bytes: 100_000)) }
        #expect(failure?.isFull == true && failure?.description.contains("Free space") == true)
        #expect(try store.read(id: "resp_1", owner: "alice", now: 2000)?.id == "resp_1")
        #expect(try store.read(id: "resp_2", owner: "alice", now: 2000) == nil)
        #expect(try store.delete(id: "resp_1", owner: "alice"))
    }

    // MARK: A file that is locked

    @Test func `a call waits for another process's lock`() throws {
        let store = try bench.store(patience: .seconds(20))
        let stranger = try bench.stranger()
        let hasLock = DispatchSemaphore(value: 0)
        let released = Mutex<ContinuousClock.Instant?>(nil)
        Thread.detachNewThread {
            try? stranger.inDatabase { db in
                try db.execute(sql: "BEGIN IMMEDIATE")
                hasLock.signal()
                usleep(200_000)
                released.withLock { $0 = .now }
                try db.execute(sql: "COMMIT")
            }
        }
        hasLock.wait()
        try store.insert(.sample())
        let before = released.withLock { $0 }
        #expect(before != nil)
    }

    @Test func `behind a lock that stays, every thread fails as busy within the same time, and reads go on`() throws {
        let store = try bench.store(patience: .seconds(1))
        try store.insert(.sample(state: .inProgress))
        let stranger = try bench.stranger()
        let failures = Mutex<[SessionStoreError?]>([])
        let reads = Atomic(0)
        var elapsed: Duration = .zero
        try stranger.inDatabase { db in
            try db.execute(sql: "BEGIN EXCLUSIVE")
            elapsed = ContinuousClock().measure {
                onThreads(8) { index in
                    let failure = failure { () throws(SessionStoreError) in try store.insert(.sample("new\(index)")) }
                    failures.withLock { $0.append(failure) }
                    if (try? store.isCancelRequested(id: "resp_1")) == false { reads.add(1, ordering: .relaxed) }
                }
            }
            try db.execute(sql: "ROLLBACK")
        }
        #expect(failures.withLock { $0.count(where: { $0?.isBusy == true }) } == 8)
        #expect(failures.withLock { $0.first??.description.contains("fuser") } == true)
        #expect(reads.load(ordering: .relaxed) == 8)
        // One after the other would take 8 s.
        #expect(elapsed >= .seconds(1) && elapsed < .seconds(6))
        #expect(try store.count(owner: "alice") == 1)
        try store.insert(.sample("later"))
    }

    @Test func `a database that another keeps for itself is refused as busy within the time given`() throws {
        _ = try bench.store()
        let stranger = try bench.stranger()
        try stranger.inDatabase { db in
            try db.execute(sql: "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; COMMIT")
        }
        var refusal: SessionStoreError?
        let elapsed = ContinuousClock().measure {
            refusal = failure { () throws(SessionStoreError) in _ = try bench.store(patience: .milliseconds(200)) }
        }
        #expect(refusal?.isBusy == true, "\(String(describing: refusal))")
        // SQLite's wrapper itself would take 10 s.
        #expect(elapsed < .seconds(6))
    }

    // MARK: What errors are

    @Test(arguments: [
        (SessionStoreError.cannotOpen(path: "/p", errno: EROFS), "read-only"),
        (.cannotOpen(path: "/p", errno: EACCES), "read-only"),
        (.cannotOpen(path: "/p", errno: ENOSPC), "full"),
        (.cannotOpen(path: "/p", errno: EDQUOT), "full"),
        (.cannotOpen(path: "/p", errno: ENOENT), ""),
        (.sqlite(path: "/p", code: 13, message: "m"), "full"),
        (.sqlite(path: "/p", code: 4874, message: "m"), "full"),
        (.sqlite(path: "/p", code: 1544, message: "m"), "read-only"),
        (.sqlite(path: "/p", code: 8, message: "m"), "read-only"),
        (.sqlite(path: "/p", code: 11, message: "m"), "corrupt"),
        (.sqlite(path: "/p", code: 267, message: "m"), "corrupt"),
        (.sqlite(path: "/p", code: 26, message: "m"), "corrupt"),
        (.sqlite(path: "/p", code: 5, message: "m"), "busy"),
        (.sqlite(path: "/p", code: 261, message: "m"), "busy"),
        (.sqlite(path: "/p", code: 14, message: "m"), ""),
        (.sqlite(path: "/p", code: 1, message: "m"), ""),
    ])
    func `an error says what it is, where, and what to do`(error: SessionStoreError, kinds: String) {
        let found = [
            error.isFull ? "full" : nil, error.isReadOnly ? "read-only" : nil, error.isCorrupt ? "corrupt" : nil,
            error.isBusy ? "busy" : nil,
        ]
        #expect(found.compactMap(\.self).joined(separator: " ") == kinds)
        #expect(error.description.contains("/p") && error.description.hasSuffix("."))
    }
}
