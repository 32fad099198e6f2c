// The rules of a session.
//
// A session is begun before its first turn, so that its key's limit holds while turns run at the same time in several
// processes, and so that its files are known by a row before they are made. It becomes a session, listed and continued,
// with the first turn that is whole. Each whole turn is one `commit`, on the disk before it returns; a turn that fails
// writes nothing. A session that is deleted while a turn runs stays deleted: its commit finds no row.
//
// Rows go before their files: a file without a row is left behind by a crash, and `isKnown` finds it. A row without its
// file would be a session that can't go on.

internal import GRDB

/// The sessions, shared by every process that opens the same file.
public final class SessionStore: Sendable {
    /// The connections that it uses.
    let database: SessionDatabase

    /// Uses connections that this process has already.
    public init(database: SessionDatabase) { self.database = database }

    /// Opens the file with connections of its own, and makes or migrates it where needed.
    ///
    /// - Parameters: As of ``SessionDatabase/init(path:patience:)``.
    @available(*, noasync, message: "blocks")
    public convenience init(path: String, patience: Duration = .seconds(2)) throws(SessionStoreError) {
        self.init(database: try SessionDatabase(path: path, patience: patience))
    }

    // MARK: Turns

    /// Stores a session whose first turn begins; its turns are 0, whatever it says.
    ///
    /// It need not survive a power failure: the turn would not either, and the commit takes it to the disk.
    ///
    /// - Parameter limit: How many the key may have, begun ones included.
    /// - Returns: False when the key has as many already; nothing is stored then.
    @available(*, noasync, message: "blocks")
    public func begin(_ session: StoredSession, limit: Int) throws(SessionStoreError) -> Bool {
        try database.write(reachesDisk: false) { db in
            let count = try Int.fetchOne(
                db.cachedStatement(sql: "SELECT count(*) FROM (SELECT 1 FROM session WHERE owner = ? LIMIT ?)"),
                arguments: [session.owner, max(0, limit)])
            guard let count, count < limit else { return false }
            try db.execute(
                sql: """
                    INSERT INTO session (id, owner, begun, cli_session_id, title, working_directory, owns_directory,
                        model, profile, transcript_bytes, turns, input_tokens, output_tokens, cache_read_tokens,
                        cache_creation_tokens, cost_usd, created, last_used, settings, conversation)
                    VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    session.id, session.owner, session.cliSessionID, session.title, session.workingDirectory,
                    session.ownsDirectory, session.model, session.profile.rawValue, session.transcriptBytes,
                    session.inputTokens, session.outputTokens, session.cacheReadTokens, session.cacheCreationTokens,
                    session.costUSD, session.created, session.lastUsed, session.settings, session.conversation,
                ])
            return true
        }
    }

    /// Removes a session whose first turn failed.
    ///
    /// - Returns: Whether it was there and still only begun; a session with a whole turn stays.
    @available(*, noasync, message: "blocks")
    @discardableResult
    public func abandonBegun(id: String) throws(SessionStoreError) -> Bool {
        try database.write(reachesDisk: false) { db in
            try db.execute(sql: "DELETE FROM session WHERE id = ? AND begun = 1", arguments: [id])
            return db.changesCount > 0
        }
    }

    /// Stores a whole turn, and counts that as a use; from the return on it survives a power failure.
    ///
    /// - Parameter now: Seconds since 1970.
    /// - Returns: False when the session was deleted meanwhile; nothing is stored then.
    @available(*, noasync, message: "blocks")
    public func commit(id: String, owner: String, turn: SessionTurn, now: Int) throws(SessionStoreError) -> Bool {
        try database.write { db in
            try db.execute(
                sql: """
                    UPDATE session SET begun = 0, turns = turns + 1, cli_session_id = :cli, model = :model,
                        working_directory = :directory, settings = :settings, title = coalesce(:title, title),
                        conversation = coalesce(:conversation, conversation), transcript_bytes = :bytes,
                        input_tokens = input_tokens + :input, output_tokens = output_tokens + :output,
                        cache_read_tokens = cache_read_tokens + :read,
                        cache_creation_tokens = cache_creation_tokens + :creation,
                        cost_usd = cost_usd + :cost, last_used = max(last_used, :now)
                    WHERE id = :id AND owner = :owner
                    """,
                arguments: [
                    "id": id, "owner": owner, "cli": turn.cliSessionID, "model": turn.model,
                    "directory": turn.workingDirectory, "settings": turn.settings, "title": turn.title,
                    "conversation": turn.conversation, "bytes": turn.transcriptBytes, "input": turn.inputTokens,
                    "output": turn.outputTokens, "read": turn.cacheReadTokens, "creation": turn.cacheCreationTokens,
                    "cost": turn.costUSD, "now": now,
                ])
            return db.changesCount > 0
        }
    }

    // MARK: Reading

    /// A session of a key that has a whole turn; reading does not count as a use.
    @available(*, noasync, message: "blocks")
    public func session(id: String, owner: String) throws(SessionStoreError) -> StoredSession? {
        let row = try database.read { db in
            try Row.fetchOne(
                db.cachedStatement(
                    sql: """
                        SELECT \(Self.columns), settings, conversation FROM session
                        WHERE id = ? AND owner = ? AND begun = 0
                        """),
                arguments: [id, owner])
        }
        guard let row else { return nil }
        return try storedSession(row)
    }

    /// Marks a session as used, unless the mark can't be written now.
    ///
    /// - Parameter now: Seconds since 1970; time never goes back.
    @available(*, noasync, message: "blocks")
    public func touch(id: String, owner: String, now: Int) throws(SessionStoreError) {
        try database.mark { db in
            try db.execute(
                sql: "UPDATE session SET last_used = ? WHERE id = ? AND owner = ? AND last_used < ?",
                arguments: [now, id, owner, now])
        }
    }

    /// One page of sessions that have a whole turn, the newest first.
    ///
    /// Pages never show a session twice, and none is left out that was there all the time.
    ///
    /// - Parameters:
    ///   - owner: Nil for those of all keys.
    ///   - limit: How many at most.
    ///   - after: The last session of the page before; one that is not there, or is another key's, has no page.
    /// - Returns: The sessions without their documents: `settings` are empty and `conversation` is nil.
    @available(*, noasync, message: "blocks")
    public func list(
        owner: String?, limit: Int, after: String?
    ) throws(SessionStoreError) -> (sessions: [StoredSession], hasMore: Bool) {
        let limit = min(max(0, limit), .max - 1)
        let rows = try database.read { db in
            var place: Row?
            if let after {
                place = try Row.fetchOne(
                    db,
                    sql: """
                        SELECT created, rowid AS number FROM session
                        WHERE id = :id AND begun = 0 \(owner == nil ? "" : "AND owner = :owner")
                        """,
                    arguments: owner == nil ? ["id": after] : ["id": after, "owner": owner])
                guard place != nil else { return [Row]() }
            }
            var arguments: StatementArguments = ["limit": limit + 1]
            if let owner { arguments += ["owner": owner] }
            if let place {
                let (created, number): (Int, Int) =
                    (try database.value(place, "created"), try database.value(place, "number"))
                arguments += ["created": created, "number": number]
            }
            return try Row.fetchAll(
                db.cachedStatement(sql: Self.page(ofOwner: owner != nil, isFirst: place == nil)),
                arguments: arguments)
        }
        var sessions: [StoredSession] = []
        for row in rows.prefix(limit) { sessions.append(try storedSession(row)) }
        return (sessions, rows.count > limit)
    }

    /// How many sessions with a whole turn a key has.
    ///
    /// - Parameter owner: Nil for all keys.
    @available(*, noasync, message: "blocks")
    public func count(owner: String?) throws(SessionStoreError) -> Int {
        try database.read { db in
            let sql = "SELECT count(*) FROM session WHERE begun = 0"
            guard let owner else { return try Int.fetchOne(db.cachedStatement(sql: sql)) ?? 0 }
            return try Int.fetchOne(db.cachedStatement(sql: sql + " AND owner = ?"), arguments: [owner]) ?? 0
        }
    }

    // MARK: Removal

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

    // MARK: Rows

    /// All columns that are not documents.
    private static let columns = """
        id, owner, cli_session_id, title, working_directory, owns_directory, model, profile, transcript_bytes, turns,
        input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cost_usd, created, last_used
        """

    /// The statement of a page; an index has its rows in this order.
    static func page(ofOwner: Bool, isFirst: Bool) -> String {
        """
        SELECT \(columns) FROM session
        WHERE begun = 0 \(ofOwner ? "AND owner = :owner" : "") \(isFirst ? "" : "AND (created, rowid) < (:created, :number)")
        ORDER BY created DESC, rowid DESC LIMIT :limit
        """
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

    private func storedSession(_ row: Row) throws(SessionStoreError) -> StoredSession {
        guard let profile = StoredSession.Profile(rawValue: try database.value(row, "profile")) else {
            throw .unreadable(path: database.path, column: "profile")
        }
        let hasDocuments = row.hasColumn("settings")
        return StoredSession(
            id: try database.value(row, "id"), owner: try database.value(row, "owner"),
            cliSessionID: try database.value(row, "cli_session_id"), title: try database.value(row, "title"),
            workingDirectory: try database.value(row, "working_directory"),
            ownsDirectory: try database.value(row, "owns_directory"), model: try database.value(row, "model"),
            profile: profile, settings: hasDocuments ? try database.value(row, "settings") : "",
            conversation: hasDocuments ? try database.value(row, "conversation") : nil,
            transcriptBytes: try database.value(row, "transcript_bytes"), turns: try database.value(row, "turns"),
            inputTokens: try database.value(row, "input_tokens"),
            outputTokens: try database.value(row, "output_tokens"),
            cacheReadTokens: try database.value(row, "cache_read_tokens"),
            cacheCreationTokens: try database.value(row, "cache_creation_tokens"),
            costUSD: try database.value(row, "cost_usd"), created: try database.value(row, "created"),
            lastUsed: try database.value(row, "last_used"))
    }
}
