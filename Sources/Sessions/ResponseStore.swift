// The rules of a stored response.
//
// A response begins queued or in progress, and ends once: the first terminal state that is written stays, and what
// comes later is ignored. So a cancellation is never overwritten by the answer of a run that had not noticed it yet,
// and an answer that was whole first stays whole. A request to cancel is only a mark: whoever runs the response looks
// for it several times a second, ends the CLI and writes `cancelled`; the one who asked may write `cancelled` at once.
//
// A row with a runner belongs to a live process, or is found abandoned and fails; it neither expires nor makes room.

internal import GRDB

/// The stored responses of the Responses API, shared by every process that opens the same file.
public final class ResponseStore: Sendable {
    /// Rows removed in one transaction when room is made; others write in between.
    private static let batch = 50
    /// Pages given back to the disk at a time: 1 MiB.
    private static let vacuumPages = 256

    /// The connections that it uses.
    let database: SessionDatabase

    /// Opens the file, and makes or migrates it where needed.
    ///
    /// - Parameters:
    ///   - path: The file, in an existing directory; a new one is readable by its owner only.
    ///   - patience: How long a call waits while another process has the file locked, before it fails as busy.
    @available(*, noasync, message: "blocks")
    public init(path: String, patience: Duration = .seconds(2)) throws(SessionStoreError) {
        database = try SessionDatabase(path: path, patience: patience)
    }

    /// Stores a new response; a response that has ended is stored without its runner.
    @available(*, noasync, message: "blocks")
    public func insert(_ response: StoredResponse) throws(SessionStoreError) {
        let runner = response.state.isTerminal ? nil : response.runnerPID
        let startTime = runner.map { _ in Int64(bitPattern: response.runnerStartTime ?? 0) }
        try database.write { db in
            try db.execute(
                sql: """
                    INSERT INTO response (id, owner, state, previous_id, created, last_used, runner_pid,
                        runner_start_time, cancel_requested, response, input, conversation)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    response.id, response.owner, response.state.rawValue, response.previousID, response.created,
                    response.lastUsed, runner, startTime, response.cancelRequested, response.response, response.input,
                    response.conversation,
                ])
        }
    }

    /// Writes how a response goes on or ends, and counts that as a use; without effect on one that has ended.
    ///
    /// - Parameters:
    ///   - state: A terminal one also takes the runner off.
    ///   - conversation: Nil leaves it as it is.
    ///   - now: Seconds since 1970.
    /// - Returns: Whether there is such a response; false when it was deleted meanwhile.
    @available(*, noasync, message: "blocks")
    @discardableResult
    public func update(
        id: String, state: StoredResponse.State, response: String, conversation: String?, now: Int
    ) throws(SessionStoreError) -> Bool {
        try database.write { db in
            try db.execute(
                sql: """
                    UPDATE response SET state = :state, response = :response,
                        conversation = coalesce(:conversation, conversation), last_used = max(last_used, :now),
                        runner_pid = iif(:ends, NULL, runner_pid),
                        runner_start_time = iif(:ends, NULL, runner_start_time)
                    WHERE id = :id AND state IN ('queued', 'in_progress')
                    """,
                arguments: [
                    "id": id, "state": state.rawValue, "response": response, "conversation": conversation, "now": now,
                    "ends": state.isTerminal,
                ])
            if db.changesCount > 0 { return true }
            return try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM response WHERE id = ?)", arguments: [id])
                ?? false
        }
    }

    /// Reads a response and marks it as used.
    ///
    /// A mark that can't be written now, on a full disk, say, is left out: the caller has its response.
    ///
    /// - Parameter now: Seconds since 1970.
    @available(*, noasync, message: "blocks")
    public func response(id: String, owner: String, now: Int) throws(SessionStoreError) -> StoredResponse? {
        guard var found = try response(id: id, owner: owner) else { return nil }
        guard found.lastUsed < now else { return found }
        do throws(SessionStoreError) {
            try database.write(reachesDisk: false) { db in
                try db.execute(
                    sql: "UPDATE response SET last_used = max(last_used, ?) WHERE id = ? AND owner = ?",
                    arguments: [now, id, owner])
            }
            found.lastUsed = now
        } catch {
            guard error.isFull || error.isBusy || error.isReadOnly else { throw error }
        }
        return found
    }

    /// Deletes a response; one that runs then finds that its cancellation is requested.
    ///
    /// - Returns: Whether there was one.
    @available(*, noasync, message: "blocks")
    public func delete(id: String, owner: String) throws(SessionStoreError) -> Bool {
        try database.write { db in
            try db.execute(sql: "DELETE FROM response WHERE id = ? AND owner = ?", arguments: [id, owner])
            return db.changesCount > 0
        }
    }

    /// Asks for the end of a response; without effect on one that has ended.
    ///
    /// - Returns: The response as it is now: its state shows whether it had ended before. Nil when there is none.
    @available(*, noasync, message: "blocks")
    public func requestCancel(id: String, owner: String) throws(SessionStoreError) -> StoredResponse? {
        try database.write { db in
            try db.execute(
                sql: """
                    UPDATE response SET cancel_requested = 1
                    WHERE id = ? AND owner = ? AND state IN ('queued', 'in_progress')
                    """,
                arguments: [id, owner])
        }
        return try response(id: id, owner: owner)
    }

    /// Whether a run should stop: its end was asked for, or nobody waits for its answer.
    ///
    /// The latter when the response was deleted, or somebody else ended it. Cheap: one look-up in memory.
    @available(*, noasync, message: "blocks")
    public func isCancelRequested(id: String) throws(SessionStoreError) -> Bool {
        try database.read { db in
            let isWanted = try Bool.fetchOne(
                db.cachedStatement(
                    sql: """
                        SELECT cancel_requested = 0 AND state IN ('queued', 'in_progress') FROM response WHERE id = ?
                        """),
                arguments: [id])
            return isWanted != true
        }
    }

    /// Fails every response whose runner is dead, and counts that as a use.
    ///
    /// Several processes may look at once: each response is failed, and named, by one of them.
    ///
    /// - Parameters:
    ///   - now: Seconds since 1970.
    ///   - isAlive: Whether the process with this number and start time lives.
    ///   - failedResponse: The JSON of the response object of one that failed.
    /// - Returns: The ids of those that failed.
    @available(*, noasync, message: "blocks")
    public func failAbandoned(
        now: Int, isAlive: (_ pid: Int32, _ startTime: UInt64) -> Bool, failedResponse: (StoredResponse) -> String
    ) throws(SessionStoreError) -> [String] {
        let running = try database.read { db in
            try Row.fetchAll(
                db, sql: "SELECT id, owner, runner_pid, runner_start_time FROM response WHERE runner_pid IS NOT NULL")
        }
        var failed: [String] = []
        for row in running {
            let id: String = try value(row, "id")
            let pid: Int32 = try value(row, "runner_pid")
            let startTime: Int64 = try value(row, "runner_start_time")
            guard !isAlive(pid, UInt64(bitPattern: startTime)),
                let abandoned = try response(id: id, owner: try value(row, "owner"))
            else { continue }
            let replacement = failedResponse(abandoned)
            let isOurs = try database.write { db in
                try db.execute(
                    sql: """
                        UPDATE response SET state = 'failed', response = ?, last_used = max(last_used, ?),
                            runner_pid = NULL, runner_start_time = NULL
                        WHERE id = ? AND runner_pid = ? AND runner_start_time = ?
                        """,
                    arguments: [replacement, now, id, pid, startTime])
                return db.changesCount > 0
            }
            if isOurs { failed.append(id) }
        }
        return failed
    }

    /// Removes responses that nobody used for long, the oldest first, and gives some disk space back.
    ///
    /// - Parameters:
    ///   - unusedSince: Seconds since 1970; what was used then or later stays.
    ///   - limit: How many at most: another process's write waits for all of them.
    /// - Returns: How many; as many as `limit` when there may be more.
    @available(*, noasync, message: "blocks")
    public func removeExpired(unusedSince: Int, limit: Int) throws(SessionStoreError) -> Int {
        try database.write { db in
            try db.execute(
                sql: """
                    DELETE FROM response WHERE rowid IN (
                        SELECT rowid FROM response WHERE last_used < ? AND runner_pid IS NULL
                        ORDER BY last_used LIMIT ?)
                    """,
                arguments: [unusedSince, limit])
            let removed = db.changesCount
            if removed > 0 { try db.execute(sql: "PRAGMA incremental_vacuum(\(Self.vacuumPages))") }
            return removed
        }
    }

    /// How many responses a key has.
    @available(*, noasync, message: "blocks")
    public func count(owner: String) throws(SessionStoreError) -> Int {
        try database.read { db in try Self.count(db, owner: owner) }
    }

    /// Removes a key's least recently used responses until as many as it may keep are left.
    ///
    /// - Returns: How many were removed.
    @available(*, noasync, message: "blocks")
    @discardableResult
    public func removeOldest(owner: String, keeping: Int) throws(SessionStoreError) -> Int {
        var removed = 0
        while true {
            let step = try database.write { db in
                let excess = try Self.count(db, owner: owner) - keeping
                guard excess > 0 else { return 0 }
                try db.execute(
                    sql: """
                        DELETE FROM response WHERE rowid IN (
                            SELECT rowid FROM response WHERE owner = ? AND runner_pid IS NULL
                            ORDER BY last_used, rowid LIMIT ?)
                        """,
                    arguments: [owner, min(excess, Self.batch)])
                return db.changesCount
            }
            removed += step
            if step < Self.batch { return removed }
        }
    }

    private static func count(_ db: Database, owner: String) throws -> Int {
        try Int.fetchOne(db, sql: "SELECT count(*) FROM response WHERE owner = ?", arguments: [owner]) ?? 0
    }

    private func response(id: String, owner: String) throws(SessionStoreError) -> StoredResponse? {
        let row = try database.read { db in
            try Row.fetchOne(db, sql: "SELECT * FROM response WHERE id = ? AND owner = ?", arguments: [id, owner])
        }
        guard let row else { return nil }
        return try storedResponse(row)
    }

    private func storedResponse(_ row: Row) throws(SessionStoreError) -> StoredResponse {
        guard let state = StoredResponse.State(rawValue: try value(row, "state")) else {
            throw .unreadable(path: database.path, column: "state")
        }
        let startTime: Int64? = try value(row, "runner_start_time")
        return StoredResponse(
            id: try value(row, "id"), owner: try value(row, "owner"), state: state,
            previousID: try value(row, "previous_id"), response: try value(row, "response"),
            input: try value(row, "input"), conversation: try value(row, "conversation"),
            created: try value(row, "created"), lastUsed: try value(row, "last_used"),
            runnerPID: try value(row, "runner_pid"), runnerStartTime: startTime.map { UInt64(bitPattern: $0) },
            cancelRequested: try value(row, "cancel_requested"))
    }

    /// Not by the row's subscript, which ends the process when a damaged file has another type there.
    private func value<Value: DatabaseValueConvertible & StatementColumnConvertible>(
        _ row: Row, _ column: String
    ) throws(SessionStoreError) -> Value {
        do {
            return try row.decode(forColumn: column)
        } catch {
            // The error itself shows the row.
            throw .unreadable(path: database.path, column: column)
        }
    }
}
