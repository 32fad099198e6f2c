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
