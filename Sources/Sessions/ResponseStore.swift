// The stored responses; `BackgroundStore` has the rules of those that run.

internal import GRDB

/// The stored responses of the Responses API.
public typealias ResponseStore = BackgroundStore<StoredResponse>

extension ResponseStore {
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
        try change(
            id: id, state: state, texts: ["response": response, "conversation": conversation], now: now) != .missing
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
        try endAbandoned(now: now, isAlive: isAlive) { id, owner throws(SessionStoreError) in
            try thing(id: id, owner: owner).map { (.failed, ["response": failedResponse($0)]) }
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
}

extension StoredResponse: BackgroundThing {
    /// The table of responses.
    public static var table: String { "response" }

    /// Reads a whole row.
    public init(_ row: BackgroundRow) throws(SessionStoreError) {
        self.init(
            id: try row.value("id"), owner: try row.value("owner"), state: try row.state(),
            previousID: try row.value("previous_id"), response: try row.value("response"),
            input: try row.value("input"), conversation: try row.value("conversation"),
            created: try row.value("created"), lastUsed: try row.value("last_used"),
            runnerPID: try row.value("runner_pid"), runnerStartTime: try row.runnerStartTime(),
            cancelRequested: try row.value("cancel_requested"))
    }

    /// Columns of responses alone.
    public var texts: [String: String?] {
        ["previous_id": previousID, "response": response, "input": input, "conversation": conversation]
    }
}

extension StoredResponse.State: BackgroundState {}
