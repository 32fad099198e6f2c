// The runs in the background of the direct API; `BackgroundStore` has the rules. Progress does not wait for the disk:
// after a power failure no run goes on. The begin of a run and its end do.

internal import GRDB

/// The runs in the background.
public typealias RunStore = BackgroundStore<StoredRun>

extension RunStore {
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
        return try change(id: id, state: state, texts: ["progress": progress], now: now, reachesDisk: false)
            == .made
    }

    /// Writes how a run ended, takes its runner off, and counts that as a use.
    ///
    /// - Parameters:
    ///   - end: Its state, and the reply or the error.
    ///   - progress: How far it came, as JSON; nil leaves it as it is.
    ///   - now: Seconds since 1970.
    /// - Returns: Whether this is its end; false when it had ended before or was deleted.
    @available(*, noasync, message: "blocks")
    @discardableResult
    public func finish(
        id: String, _ end: StoredRun.End, progress: String? = nil, now: Int
    ) throws(SessionStoreError) -> Bool {
        try change(
            id: id, state: end.state, texts: ["result": end.result, "error": end.error, "progress": progress], now: now)
            == .made
    }

    /// Ends every run whose runner is dead, and counts that as a use.
    ///
    /// Several processes may look at once: each run is ended, and named, by one of them.
    ///
    /// - Parameters:
    ///   - now: Seconds since 1970.
    ///   - isAlive: Whether the process with this number and start time lives.
    ///   - end: How a run ended; asked by every process that looks, outside of the transaction.
    /// - Returns: The ids of those that it ended.
    @available(*, noasync, message: "blocks")
    public func endAbandoned(
        now: Int, isAlive: (_ pid: Int32, _ startTime: UInt64) -> Bool, end: (_ id: String) -> StoredRun.End
    ) throws(SessionStoreError) -> [String] {
        try endAbandoned(now: now, isAlive: isAlive) { id, _ in
            let end = end(id)
            return (end.state, ["result": end.result, "error": end.error])
        }
    }
}

extension StoredRun: BackgroundThing {
    /// The table of runs.
    public static var table: String { "run" }

    /// Reads a whole row.
    public init(_ row: BackgroundRow) throws(SessionStoreError) {
        self.init(
            id: try row.value("id"), owner: try row.value("owner"), sessionID: try row.value("session_id"),
            state: try row.state(), created: try row.value("created"), lastUsed: try row.value("last_used"),
            runnerPID: try row.value("runner_pid"), runnerStartTime: try row.runnerStartTime(),
            cancelRequested: try row.value("cancel_requested"), progress: try row.value("progress"),
            result: try row.value("result"), error: try row.value("error"))
    }

    /// Columns of runs alone.
    public var texts: [String: String?] {
        ["session_id": sessionID, "progress": progress, "result": result, "error": error]
    }
}

extension StoredRun.State: BackgroundState {}
