import Foundation
import GRDB
import Synchronization

@testable import Sessions

/// A database file in a directory of its own; each store on it stands for a responder process.
final class StoreBench {
    let directory: URL
    var path: String { directory.path + "/sessions.db" }

    init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("sessions-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: directory) }

    func store(patience: Duration = .seconds(2)) throws(SessionStoreError) -> ResponseStore {
        try ResponseStore(path: path, patience: patience)
    }

    /// Another process's sessions.
    func sessions(patience: Duration = .seconds(2)) throws(SessionStoreError) -> SessionStore {
        try SessionStore(path: path, patience: patience)
    }

    /// Another process's runs.
    func runs(patience: Duration = .seconds(2)) throws(SessionStoreError) -> RunStore {
        try RunStore(path: path, patience: patience)
    }

    /// Another program's connection.
    func stranger() throws -> DatabaseQueue { try DatabaseQueue(path: path) }

    /// What opening the file is refused with; nil when it is not.
    func refusal() -> SessionStoreError? { failure { () throws(SessionStoreError) in _ = try store() } }
}

/// What a call fails with; nil when it does not.
func failure(_ body: () throws(SessionStoreError) -> Void) -> SessionStoreError? {
    do throws(SessionStoreError) {
        try body()
        return nil
    } catch {
        return error
    }
}

/// Runs a body on several threads at once and waits for all.
func onThreads(_ count: Int, _ body: @escaping @Sendable (_ index: Int) -> Void) {
    let done = DispatchGroup()
    for index in 0..<count {
        done.enter()
        Thread.detachNewThread {
            body(index)
            done.leave()
        }
    }
    done.wait()
}

extension StoredResponse {
    /// A response with something in every document.
    static func sample(
        _ id: String = "resp_1", owner: String = "alice", state: State = .completed, used: Int = 1000, bytes: Int = 20,
        runner: (pid: Int32, startTime: UInt64)? = nil
    ) -> StoredResponse {
        StoredResponse(
            id: id, owner: owner, state: state, previousID: "resp_0", response: "{\"id\":\"\(id)\"}",
            input: "[\"é\\u0000\"]", conversation: "[\"" + String(repeating: "x", count: bytes) + "\"]", created: 900,
            lastUsed: used, runnerPID: runner?.pid, runnerStartTime: runner?.startTime)
    }
}

extension StoredSession {
    /// An agent's session with something in every column.
    static func sample(
        _ id: String = "s1", owner: String = "alice", created: Int = 900, used: Int = 1000, bytes: Int = 20
    ) -> StoredSession {
        StoredSession(
            id: id, owner: owner, cliSessionID: "cli-\(id)", title: "List é 😀 \" here",
            workingDirectory: "/state/sessions/\(id)", ownsDirectory: true, model: "claude-x", profile: .agent,
            settings: "{\"system\":\"" + String(repeating: "x", count: bytes) + "\"}", transcriptBytes: 7,
            inputTokens: 1, outputTokens: 2, cacheReadTokens: 3, cacheCreationTokens: 4, costUSD: 0.5,
            created: created, lastUsed: used)
    }

    /// A chat's session, whose row has the conversation.
    static func chat(_ id: String = "s1", owner: String = "alice", bytes: Int = 20) -> StoredSession {
        StoredSession(
            id: id, owner: owner, model: "claude-x", profile: .chat, settings: "{}",
            conversation: "[\"" + String(repeating: "y", count: bytes) + "\"]", created: 900, lastUsed: 1000)
    }

    /// This session as a list shows it.
    var withoutDocuments: StoredSession {
        var copy = self
        copy.settings = ""
        copy.conversation = nil
        return copy
    }
}

extension SessionTurn {
    /// A turn with something in every column.
    static func sample(_ number: Int = 1, conversation: String? = nil) -> SessionTurn {
        SessionTurn(
            cliSessionID: "cli-\(number)", model: "claude-\(number)", workingDirectory: "/turn/\(number)",
            settings: "{\(number)}", conversation: conversation, transcriptBytes: 100 * number, inputTokens: 10,
            outputTokens: 20, cacheReadTokens: 30, cacheCreationTokens: 40, costUSD: 0.25)
    }
}

extension SessionStore {
    /// Stores a session with one whole turn that leaves it as it is, except for its turns.
    func insertWhole(_ session: StoredSession) throws(SessionStoreError) -> Bool {
        let turn = SessionTurn(
            cliSessionID: session.cliSessionID, model: session.model, workingDirectory: session.workingDirectory,
            settings: session.settings, transcriptBytes: session.transcriptBytes)
        guard try begin(session, limit: .max) else { return false }
        return try commit(id: session.id, owner: session.owner, turn: turn, now: session.lastUsed)
    }

    /// The ids of a page.
    func ids(owner: String?, limit: Int, after: String? = nil) throws(SessionStoreError) -> [String] {
        try list(owner: owner, limit: limit, after: after).sessions.map(\.id)
    }
}

extension StoredRun {
    /// A run with something in every column that a run which goes on has.
    static func sample(
        _ id: String = "run_1", owner: String = "alice", state: State = .queued, used: Int = 1000,
        runner: (pid: Int32, startTime: UInt64)? = (pid: 12, startTime: .max - 1)
    ) -> StoredRun {
        StoredRun(
            id: id, owner: owner, sessionID: "s1", state: state, created: 900, lastUsed: used,
            runnerPID: runner?.pid, runnerStartTime: runner?.startTime, progress: "{\"turns\":0}")
    }
}
