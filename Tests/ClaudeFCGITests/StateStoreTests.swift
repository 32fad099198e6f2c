import Glibc
import Sessions
import Synchronization
import Testing

@testable import ClaudeFCGI

@Suite struct StateStoreTests {
    private func state(_ base: TemporaryDirectory) throws -> StateStore {
        let settings = try Settings(environment: ["STATE_DIR": base.path + "/state", "PROXY_API_KEY": "k"])
        return StateStore(
            settings: settings, environment: ClaudeEnvironment(service: settings.environment),
            logger: settings.makeLogger())
    }

    private func sessions(_ base: TemporaryDirectory) throws -> StoredSessions {
        StoredSessions(try state(base)) { _ in false }
    }

    private func begin(_ sessions: StoredSessions, turns: Int = 1) throws {
        let session = sessions.fresh(owner: "k", profile: .chat, from: nil, ownsDirectory: false)
        try sessions.begin(session)
        for _ in 0..<turns {
            #expect(try sessions.commit(session, SessionTurn(cliSessionID: "", model: "m", settings: "{}")))
        }
    }

    @Test func `who has not used the database counts as who has`() throws {
        let base = try TemporaryDirectory()
        let (one, other) = (try sessions(base), try sessions(base))
        for _ in 0..<3 { try begin(one) }
        try begin(one, turns: 0)
        #expect(one.count == 3 && other.count == 3)
        try begin(other)
        #expect(one.count == 4 && other.count == 4)
    }

    @Test func `counting makes no database`() throws {
        let base = try TemporaryDirectory()
        let sessions = try sessions(base)
        #expect(sessions.count == 0)
        #expect(!Files.exists(base.path + "/state/sessions.db"))
    }

    @Test func `a database that can't be opened counts as none`() throws {
        let base = try TemporaryDirectory()
        let sessions = try sessions(base)
        try Files.makeDirectory(base.path + "/state")
        try Files.replace(base.path + "/state/sessions.db", with: Array(repeating: 0x55, count: 8192))
        #expect(sessions.count == 0)
    }

    /// The responder that has the request removes them at its end, unless it dies before.
    @Test func `the files of a session that is deleted while a request has it go in the end`() throws {
        let base = try TemporaryDirectory()
        let isBusy = Atomic<Bool>(true)
        let sessions = StoredSessions(try state(base)) { _ in isBusy.load(ordering: .relaxed) }
        let session = sessions.fresh(owner: "k", profile: .agent, from: nil, ownsDirectory: true)
        try sessions.begin(session)
        let file = sessions.directory(of: session.id) + "/file"
        try Files.makeDirectory(sessions.directory(of: session.id))
        try Files.replace(file, with: [1])
        try sessions.delete(session.id, owner: "k")
        for _ in 0..<2 {
            sessions.removeDeleted()
            #expect(Files.exists(file))
        }
        isBusy.store(false, ordering: .relaxed)
        sessions.removeDeleted()
        #expect(!Files.exists(sessions.directory(of: session.id)))
    }

    /// Another process writes, or the disk is full.
    @Test func `an end that can't be written is written later, once`() throws {
        let base = try TemporaryDirectory()
        let state = try state(base)
        let failing = Mutex<Set<Int>>([1, 2])
        let written = Mutex<[Int]>([])
        for number in 0..<4 {
            state.writeEnd("not yet") { _ throws(SessionStoreError) in
                if failing.withLock({ $0.contains(number) }) { throw .cannotOpen(path: "", errno: ENOSPC) }
                written.withLock { $0.append(number) }
            }
        }
        #expect(written.withLock { $0 } == [0, 3])
        state.writePostponed()
        // One that fails for ever keeps no other back for long.
        failing.withLock { _ = $0.remove(2) }
        for _ in 0..<2 { state.writePostponed() }
        #expect(written.withLock { $0 } == [0, 3, 2])
        failing.withLock { $0 = [] }
        for _ in 0..<2 { state.writePostponed() }
        #expect(written.withLock { $0 } == [0, 3, 2, 1])
    }
}
