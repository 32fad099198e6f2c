// How sessions end, and what is looked after from time to time.
//
// Rows go before their files: a file without a row is left behind by a crash, and `isKnown` finds it. A row without its
// file would be a session that can't go on.

internal import GRDB

extension SessionStore {
    /// Deletes a session, also one that is only begun; a turn that runs then finds that it can't be committed.
    ///
    /// A row that can't be read is gone all the same.
    ///
    /// - Parameter owner: Nil for any key's.
    /// - Returns: The session without its documents, whose files the caller removes; nil when there is none.
    @available(*, noasync, message: "blocks")
    public func delete(id: String, owner: String?) throws(SessionStoreError) -> StoredSession? {
        let row = try database.write { db in
            try Row.fetchAll(
                db,
                sql: """
                    DELETE FROM session WHERE id = :id \(owner == nil ? "" : "AND owner = :owner")
                    RETURNING \(Self.columns)
                    """,
                arguments: owner == nil ? ["id": id] : ["id": id, "owner": owner]
            ).first
        }
        guard let row else { return nil }
        return try storedSession(row)
    }

    /// Deletes a key's sessions, also those that are only begun.
    ///
    /// - Parameter limit: How many at most.
    /// - Returns: The sessions without their documents, as many as `limit` when there may be more. A row that can't be
    ///   read is left out: it is gone, and its files are found by ``isKnown(ids:)``.
    @available(*, noasync, message: "blocks")
    public func deleteAll(owner: String, limit: Int) throws(SessionStoreError) -> [StoredSession] {
        let rows = try database.removeInBatches(limit: limit, givesSpaceBack: true) { db in
            try Self.removeFirst(db, "owner = ?", [owner])
        }
        return readable(rows)
    }

    /// Removes sessions that nobody used for long, the oldest first, then those that were begun long ago, and gives
    /// some disk space back.
    ///
    /// - Parameters:
    ///   - unusedSince: Seconds since 1970; what was used then or later stays.
    ///   - begunBefore: Seconds since 1970; what was begun before then and has no whole turn goes.
    ///   - limit: How many at most.
    /// - Returns: As of ``deleteAll(owner:limit:)``.
    @available(*, noasync, message: "blocks")
    public func removeExpired(
        unusedSince: Int, begunBefore: Int, limit: Int
    ) throws(SessionStoreError) -> [StoredSession] {
        let rows = try database.removeInBatches(limit: limit, givesSpaceBack: true) { db in
            try Self.removeFirst(db, "begun = 0 AND last_used < ? ORDER BY last_used", [unusedSince])
                ?? Self.removeFirst(db, "begun = 1 AND created < ? ORDER BY created", [begunBefore])
        }
        return readable(rows)
    }

    /// The sessions that ``removeExpired(unusedSince:begunBefore:limit:)`` would remove as unused, the oldest first.
    @available(*, noasync, message: "blocks")
    public func expiring(unusedSince: Int, limit: Int) throws(SessionStoreError) -> [(id: String, owner: String)] {
        let rows = try database.read { db in
            try Row.fetchAll(
                db.cachedStatement(
                    sql: """
                        SELECT id, owner FROM session WHERE begun = 0 AND last_used < ? ORDER BY last_used LIMIT ?
                        """),
                arguments: [unusedSince, limit])
        }
        return rows.compactMap { row in
            guard let id = try? row.decode(String.self, forColumn: "id"),
                let owner = try? row.decode(String.self, forColumn: "owner")
            else { return nil }
            return (id, owner)
        }
    }

    // MARK: Maintenance

    /// Which of these public ids have a row, if only a begun one: the directories of the others were left behind.
    ///
    /// Look for directories first and ask then: a row is there before its directory.
    @available(*, noasync, message: "blocks")
    public func isKnown(ids: [String]) throws(SessionStoreError) -> Set<String> {
        try database.known(ids, sql: "SELECT 1 FROM session WHERE id = ?")
    }

    /// Which of these ids of the CLI have a row, if only a begun one: the transcripts of the others were left behind.
    @available(*, noasync, message: "blocks")
    public func isKnown(cliSessionIDs: [String]) throws(SessionStoreError) -> Set<String> {
        try database.known(
            cliSessionIDs, sql: "SELECT 1 FROM session WHERE cli_session_id = ? AND cli_session_id <> ''")
    }

    /// Whether the caller is to clean up now: true for one of all processes in an interval.
    ///
    /// - Parameters:
    ///   - now: Seconds since 1970; a clock that was set back does not keep it from being due.
    ///   - interval: Seconds.
    @available(*, noasync, message: "blocks")
    public func claimMaintenance(now: Int, interval: Int) throws(SessionStoreError) -> Bool {
        let isDue = "last <= :now - :interval OR last > :now"
        let arguments: StatementArguments = ["now": now, "interval": interval]
        let mayBeDue = try database.read { db in
            try Bool.fetchOne(
                db, sql: "SELECT \(isDue) FROM maintenance WHERE task = 'cleanup'", arguments: arguments) ?? true
        }
        guard mayBeDue else { return false }
        return try database.write(reachesDisk: false) { db in
            try db.execute(
                sql: """
                    INSERT INTO maintenance (task, last) VALUES ('cleanup', :now)
                    ON CONFLICT (task) DO UPDATE SET last = :now WHERE \(isDue)
                    """,
                arguments: arguments)
            return db.changesCount > 0
        }
    }

    private static func removeFirst(
        _ db: Database, _ condition: String, _ arguments: StatementArguments
    ) throws -> Row? {
        try Row.fetchAll(
            db.cachedStatement(
                sql: """
                    DELETE FROM session WHERE rowid = (SELECT rowid FROM session WHERE \(condition) LIMIT 1)
                    RETURNING \(columns)
                    """),
            arguments: arguments
        ).first
    }

    private func readable(_ rows: [Row]) -> [StoredSession] { rows.compactMap { try? storedSession($0) } }
}
