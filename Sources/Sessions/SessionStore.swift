// The rules of a session.
//
// A session is begun before its first turn, so that its key's limit holds while turns run at the same time in several
// processes, and so that its files are known by a row before they are made. It becomes a session, listed and continued,
// with the first turn that is whole. Each whole turn is one `commit`, on the disk before it returns; a turn that fails
// writes nothing. A session that is deleted while a turn runs stays deleted: its commit finds no row.
//
// A key's name stands in the condition of every call that a caller causes: another key's session does not exist.

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

    /// Adds to what a session has cost; without effect on one that was deleted.
    @available(*, noasync, message: "blocks")
    public func addCost(id: String, owner: String, costUSD: Double) throws(SessionStoreError) {
        try database.write(reachesDisk: false) { db in
            try db.execute(
                sql: "UPDATE session SET cost_usd = cost_usd + ? WHERE id = ? AND owner = ?",
                arguments: [costUSD, id, owner])
        }
    }

    // MARK: Reading

    /// A session of a key that has a whole turn; reading does not count as a use.
    ///
    /// - Parameter owner: Nil for the operator, to whom every key's are shown.
    @available(*, noasync, message: "blocks")
    public func session(id: String, owner: String?) throws(SessionStoreError) -> StoredSession? {
        let row = try database.read { db in
            try Row.fetchOne(
                db.cachedStatement(
                    sql: """
                        SELECT \(Self.columns), settings, conversation FROM session
                        WHERE id = :id AND owner = coalesce(:owner, owner) AND begun = 0
                        """),
                arguments: ["id": id, "owner": owner])
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

    // MARK: Rows

    /// All columns that are not documents.
    static let columns = """
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

    /// Reads a row with or without its documents.
    func storedSession(_ row: Row) throws(SessionStoreError) -> StoredSession {
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
