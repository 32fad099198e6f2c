// The stored responses; `BackgroundTable` has the rules of those that run.

internal import GRDB

/// The stored responses of the Responses API, shared by every process that opens the same file.
public final class ResponseStore: Sendable {
    /// The connections that it uses.
    let database: SessionDatabase
    private let responses: BackgroundTable<StoredResponse>

    /// Uses connections that this process has already.
    public init(database: SessionDatabase) {
        self.database = database
        responses = BackgroundTable(database: database, name: "response") { row throws(SessionStoreError) in
            try Self.decode(row, database)
        }
    }

    /// Opens the file with connections of its own, and makes or migrates it where needed.
    ///
    /// - Parameters: As of ``SessionDatabase/init(path:patience:)``.
    @available(*, noasync, message: "blocks")
    public convenience init(path: String, patience: Duration = .seconds(2)) throws(SessionStoreError) {
        self.init(database: try SessionDatabase(path: path, patience: patience))
    }

    /// Stores a new response; a response that has ended is stored without its runner.
    @available(*, noasync, message: "blocks")
    public func insert(_ response: StoredResponse) throws(SessionStoreError) {
        try responses.insert(
            response,
            texts: [
                "previous_id": response.previousID, "response": response.response, "input": response.input,
                "conversation": response.conversation,
            ])
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
        try responses.change(
            id: id, state: state, texts: ["response": response, "conversation": conversation], now: now) != .missing
    }

    /// Reads a response and marks it as used.
    ///
    /// A mark that can't be written now, on a full disk, say, is left out: the caller has its response.
    ///
    /// - Parameter now: Seconds since 1970.
    @available(*, noasync, message: "blocks")
    public func response(id: String, owner: String, now: Int) throws(SessionStoreError) -> StoredResponse? {
        try responses.used(id: id, owner: owner, now: now)
    }

    /// Deletes a response; one that runs then finds that its cancellation is requested.
    ///
    /// - Returns: Whether there was one.
    @available(*, noasync, message: "blocks")
    public func delete(id: String, owner: String) throws(SessionStoreError) -> Bool {
        try responses.delete(id: id, owner: owner)
    }

    /// Asks for the end of a response; without effect on one that has ended.
    ///
    /// - Returns: The response as it is now: its state shows whether it had ended before. Nil when there is none.
    @available(*, noasync, message: "blocks")
    public func requestCancel(id: String, owner: String) throws(SessionStoreError) -> StoredResponse? {
        try responses.requestCancel(id: id, owner: owner)
    }

    /// Whether a run should stop: its end was asked for, or nobody waits for its answer.
    ///
    /// The latter when the response was deleted, or somebody else ended it. Cheap: one look-up in memory.
    @available(*, noasync, message: "blocks")
    public func isCancelRequested(id: String) throws(SessionStoreError) -> Bool {
        try responses.isCancelRequested(id: id)
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
        try responses.failAbandoned(now: now, isAlive: isAlive) { id, owner throws(SessionStoreError) in
            try responses.thing(id: id, owner: owner).map { ["response": failedResponse($0)] }
        }
    }

    /// Removes responses that nobody used for long, the oldest first, and gives some disk space back.
    ///
    /// - Parameters:
    ///   - unusedSince: Seconds since 1970; what was used then or later stays.
    ///   - limit: How many at most.
    /// - Returns: How many; as many as `limit` when there may be more.
    @available(*, noasync, message: "blocks")
    public func removeExpired(unusedSince: Int, limit: Int) throws(SessionStoreError) -> Int {
        try responses.removeExpired(unusedSince: unusedSince, limit: limit).count
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
        try database.removeInBatches(
            limit: .max, givesSpaceBack: false, excess: { db in try Self.count(db, owner: owner) - keeping },
            { db in
                try String.fetchAll(
                    db.cachedStatement(
                        sql: """
                            DELETE FROM response WHERE rowid = (
                                SELECT rowid FROM response WHERE owner = ? AND runner_pid IS NULL
                                ORDER BY last_used, rowid LIMIT 1)
                            RETURNING id
                            """),
                    arguments: [owner]
                ).first
            }
        ).count
    }

    private static func count(_ db: Database, owner: String) throws -> Int {
        try Int.fetchOne(db, sql: "SELECT count(*) FROM response WHERE owner = ?", arguments: [owner]) ?? 0
    }

    private static func decode(_ row: Row, _ database: SessionDatabase) throws(SessionStoreError) -> StoredResponse {
        guard let state = StoredResponse.State(rawValue: try database.value(row, "state")) else {
            throw .unreadable(path: database.path, column: "state")
        }
        let startTime: Int64? = try database.value(row, "runner_start_time")
        return StoredResponse(
            id: try database.value(row, "id"), owner: try database.value(row, "owner"), state: state,
            previousID: try database.value(row, "previous_id"), response: try database.value(row, "response"),
            input: try database.value(row, "input"), conversation: try database.value(row, "conversation"),
            created: try database.value(row, "created"), lastUsed: try database.value(row, "last_used"),
            runnerPID: try database.value(row, "runner_pid"),
            runnerStartTime: startTime.map { UInt64(bitPattern: $0) },
            cancelRequested: try database.value(row, "cancel_requested"))
    }
}
