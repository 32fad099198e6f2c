// The runs in the background of the direct API; `BackgroundTable` has the rules. Progress does not wait for the disk:
// after a power failure no run goes on. The begin of a run and its end do.

internal import GRDB

/// The runs in the background, shared by every process that opens the same file.
public final class RunStore: Sendable {
    private let runs: BackgroundTable<StoredRun>

    /// Uses connections that this process has already.
    public init(database: SessionDatabase) {
        runs = BackgroundTable(database: database, name: "run") { row throws(SessionStoreError) in
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

    /// Stores a new run; a run that has ended is stored without its runner.
    @available(*, noasync, message: "blocks")
    public func insert(_ run: StoredRun) throws(SessionStoreError) {
        try runs.insert(
            run,
            texts: [
                "session_id": run.sessionID, "progress": run.progress, "result": run.result, "error": run.error,
            ])
    }

    /// Writes how a run goes on, and counts that as a use; without effect on one that has ended.
    ///
    /// - Parameters:
    ///   - state: Not a terminal one.
    ///   - progress: How far it is, as JSON; nil leaves it as it is.
    ///   - now: Seconds since 1970.
    /// - Returns: Whether it goes on; false when it has ended or was deleted.
    @available(*, noasync, message: "blocks")
    @discardableResult
    public func update(
        id: String, state: StoredRun.State, progress: String?, now: Int
    ) throws(SessionStoreError) -> Bool {
        precondition(!state.isTerminal, "a run ends by finish")
        return try runs.change(id: id, state: state, texts: ["progress": progress], now: now, reachesDisk: false)
            == .made
    }

    /// Writes how a run ended, takes its runner off, and counts that as a use.
    ///
    /// - Parameters:
    ///   - state: A terminal one.
    ///   - result: The reply, as JSON.
    ///   - error: The error, as JSON.
    ///   - progress: How far it came, as JSON; nil leaves it as it is.
    ///   - now: Seconds since 1970.
    /// - Returns: Whether this is its end; false when it had ended before or was deleted.
    @available(*, noasync, message: "blocks")
    @discardableResult
    public func finish(
        id: String, state: StoredRun.State, result: String? = nil, error: String? = nil, progress: String? = nil,
        now: Int
    ) throws(SessionStoreError) -> Bool {
        precondition(state.isTerminal, "a run ends in a terminal state")
        return try runs.change(
            id: id, state: state, texts: ["result": result, "error": error, "progress": progress], now: now) == .made
    }

    /// Reads a run and marks it as used.
    ///
    /// A mark that can't be written now, on a full disk, say, is left out: the caller has its run.
    ///
    /// - Parameter now: Seconds since 1970.
    @available(*, noasync, message: "blocks")
    public func run(id: String, owner: String, now: Int) throws(SessionStoreError) -> StoredRun? {
        try runs.used(id: id, owner: owner, now: now)
    }

    /// Asks for the end of a run; without effect on one that has ended.
    ///
    /// - Returns: The run as it is now: its state shows whether it had ended before. Nil when there is none.
    @available(*, noasync, message: "blocks")
    public func requestCancel(id: String, owner: String) throws(SessionStoreError) -> StoredRun? {
        try runs.requestCancel(id: id, owner: owner)
    }

    /// Whether a run should stop: its end was asked for, it was deleted, or somebody else ended it.
    ///
    /// Cheap: one look-up in memory.
    @available(*, noasync, message: "blocks")
    public func isCancelRequested(id: String) throws(SessionStoreError) -> Bool {
        try runs.isCancelRequested(id: id)
    }

    /// Fails every run whose runner is dead, and counts that as a use.
    ///
    /// Several processes may look at once: each run is failed, and named, by one of them.
    ///
    /// - Parameters:
    ///   - now: Seconds since 1970.
    ///   - isAlive: Whether the process with this number and start time lives.
    ///   - error: The error of those that fail, as JSON.
    /// - Returns: The ids of those that failed.
    @available(*, noasync, message: "blocks")
    public func failAbandoned(
        now: Int, isAlive: (_ pid: Int32, _ startTime: UInt64) -> Bool, error: String
    ) throws(SessionStoreError) -> [String] {
        try runs.failAbandoned(now: now, isAlive: isAlive) { _, _ in ["error": error] }
    }

    /// Deletes a run; one that goes on then finds that its cancellation is requested.
    ///
    /// - Returns: Whether there was one.
    @available(*, noasync, message: "blocks")
    public func delete(id: String, owner: String) throws(SessionStoreError) -> Bool {
        try runs.delete(id: id, owner: owner)
    }

    /// Removes runs that nobody used for long, the oldest first, and gives some disk space back.
    ///
    /// - Parameters:
    ///   - unusedSince: Seconds since 1970; what was used then or later stays, and what has a runner.
    ///   - limit: How many at most.
    /// - Returns: The ids of those that are gone, whose events the caller removes; as many as `limit` when there may
    ///   be more.
    @available(*, noasync, message: "blocks")
    public func removeExpired(unusedSince: Int, limit: Int) throws(SessionStoreError) -> [String] {
        try runs.removeExpired(unusedSince: unusedSince, limit: limit)
    }

    /// Which of these ids have a row: the files of the others were left behind.
    @available(*, noasync, message: "blocks")
    public func isKnown(ids: [String]) throws(SessionStoreError) -> Set<String> { try runs.known(ids: ids) }

    private static func decode(_ row: Row, _ database: SessionDatabase) throws(SessionStoreError) -> StoredRun {
        guard let state = StoredRun.State(rawValue: try database.value(row, "state")) else {
            throw .unreadable(path: database.path, column: "state")
        }
        let startTime: Int64? = try database.value(row, "runner_start_time")
        return StoredRun(
            id: try database.value(row, "id"), owner: try database.value(row, "owner"),
            sessionID: try database.value(row, "session_id"), state: state,
            created: try database.value(row, "created"), lastUsed: try database.value(row, "last_used"),
            runnerPID: try database.value(row, "runner_pid"),
            runnerStartTime: startTime.map { UInt64(bitPattern: $0) },
            cancelRequested: try database.value(row, "cancel_requested"),
            progress: try database.value(row, "progress"), result: try database.value(row, "result"),
            error: try database.value(row, "error"))
    }
}
