// The rules of what a process runs in the background: responses and runs, a table of each.
//
// A thing begins in a state that is not terminal, and ends once: the first terminal state that is written stays, and
// what comes later is ignored. So a cancellation is never overwritten by the answer of a run that had not noticed it
// yet, and an answer that was whole first stays whole. A request to cancel is only a mark: whoever runs the thing looks
// for it several times a second, ends the CLI and writes `cancelled`; the one who asked may write `cancelled` at once.
//
// A row with a runner belongs to a live process, or is found abandoned and fails; it neither expires nor makes room.

internal import GRDB

/// Where something that runs in the background stands.
public protocol BackgroundState: RawRepresentable<String>, CaseIterable, Sendable {
    /// Nothing changes it any more.
    var isTerminal: Bool { get }
}

/// Something that a process runs in the background: the part of it that is the same for all kinds.
public protocol BackgroundThing: Sendable {
    /// The states that it can have.
    associatedtype State: BackgroundState

    /// The table of its kind.
    static var table: String { get }
    /// Reads a whole row.
    init(_ row: BackgroundRow) throws(SessionStoreError)

    /// The public id.
    var id: String { get }
    /// The key's name; for every other key the row does not exist.
    var owner: String { get }
    /// Where it stands.
    var state: State { get }
    /// Seconds since 1970.
    var created: Int { get }
    /// Seconds since 1970; what expiry counts from.
    var lastUsed: Int { get set }
    /// The process that runs it.
    var runnerPID: Int32? { get }
    /// That process's start time.
    var runnerStartTime: UInt64? { get }
    /// The caller asked for its end.
    var cancelRequested: Bool { get }
    /// Columns of this kind alone, and what they hold.
    var texts: [String: String?] { get }
}

/// A row of one of the tables.
public struct BackgroundRow {
    private let row: Row
    private let database: SessionDatabase

    /// A row of this file.
    init(_ row: Row, in database: SessionDatabase) {
        self.row = row
        self.database = database
    }

    /// What a column holds.
    func value<Value: DatabaseValueConvertible & StatementColumnConvertible>(
        _ column: String
    ) throws(SessionStoreError) -> Value {
        try database.value(row, column)
    }

    /// Where the thing stands.
    func state<State: BackgroundState>() throws(SessionStoreError) -> State {
        guard let state = State(rawValue: try value("state")) else {
            throw .unreadable(path: database.path, column: "state")
        }
        return state
    }

    /// When the process was started that runs the thing.
    func runnerStartTime() throws(SessionStoreError) -> UInt64? {
        let time: Int64? = try value("runner_start_time")
        return time.map { UInt64(bitPattern: $0) }
    }
}

/// One table of things that run in the background, shared by every process that opens the same file.
public final class BackgroundStore<Thing: BackgroundThing>: Sendable {
    /// What a change met.
    enum Change: Equatable {
        /// It was made.
        case made
        /// The thing had ended before.
        case endedBefore
        /// There is no such thing.
        case missing
    }

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

    private var name: String { Thing.table }

    /// The states of a thing that has not ended, as SQL.
    private var open: String {
        Thing.State.allCases.filter { !$0.isTerminal }.map { "'\($0.rawValue)'" }.joined(separator: ", ")
    }

    /// Stores a new thing; one that has ended is stored without its runner.
    @available(*, noasync, message: "blocks")
    public func insert(_ thing: Thing) throws(SessionStoreError) {
        let runner = thing.state.isTerminal ? nil : thing.runnerPID
        let startTime = runner.map { _ in Int64(bitPattern: thing.runnerStartTime ?? 0) }
        var values: [String: (any DatabaseValueConvertible)?] = [
            "id": thing.id, "owner": thing.owner, "state": thing.state.rawValue, "created": thing.created,
            "last_used": thing.lastUsed, "runner_pid": runner, "runner_start_time": startTime,
            "cancel_requested": thing.cancelRequested,
        ]
        for (column, text) in thing.texts { values.updateValue(text, forKey: column) }
        let columns = values.keys.sorted()
        try database.write { db in
            try db.execute(
                sql: """
                    INSERT INTO \(name) (\(columns.joined(separator: ", ")))
                    VALUES (\(columns.map { ":" + $0 }.joined(separator: ", ")))
                    """,
                arguments: StatementArguments(values))
        }
    }

    /// Writes how a thing goes on or ends, and counts that as a use; without effect on one that has ended.
    ///
    /// - Parameters:
    ///   - state: A terminal one also takes the runner off.
    ///   - texts: A nil one leaves its column as it is.
    ///   - now: Seconds since 1970.
    ///   - reachesDisk: As in ``SessionDatabase/write(reachesDisk:_:)``.
    @available(*, noasync, message: "blocks")
    func change(
        id: String, state: Thing.State, texts: [String: String?], now: Int, reachesDisk: Bool = true
    ) throws(SessionStoreError) -> Change {
        var values: [String: (any DatabaseValueConvertible)?] = [
            "id": id, "state": state.rawValue, "now": now, "ends": state.isTerminal,
        ]
        for (column, text) in texts { values.updateValue(text, forKey: column) }
        let assignments = texts.keys.sorted().map { "\($0) = coalesce(:\($0), \($0)), " }.joined()
        return try database.write(reachesDisk: reachesDisk) { db in
            try db.execute(
                sql: """
                    UPDATE \(name) SET state = :state, \(assignments)last_used = max(last_used, :now),
                        runner_pid = iif(:ends, NULL, runner_pid),
                        runner_start_time = iif(:ends, NULL, runner_start_time)
                    WHERE id = :id AND state IN (\(open))
                    """,
                arguments: StatementArguments(values))
            if db.changesCount > 0 { return .made }
            let exists = try Bool.fetchOne(
                db, sql: "SELECT EXISTS (SELECT 1 FROM \(name) WHERE id = ?)", arguments: [id])
            return exists == true ? .endedBefore : .missing
        }
    }

    /// Reads a thing and leaves it as it is.
    @available(*, noasync, message: "blocks")
    func thing(id: String, owner: String) throws(SessionStoreError) -> Thing? {
        let row = try database.read { db in
            try Row.fetchOne(db, sql: "SELECT * FROM \(name) WHERE id = ? AND owner = ?", arguments: [id, owner])
        }
        guard let row else { return nil }
        return try Thing(BackgroundRow(row, in: database))
    }

    /// Reads a thing and marks it as used.
    ///
    /// A mark that can't be written now, on a full disk, say, is left out: the caller has what it asked for.
    ///
    /// - Parameter now: Seconds since 1970.
    @available(*, noasync, message: "blocks")
    public func read(id: String, owner: String, now: Int) throws(SessionStoreError) -> Thing? {
        guard var found = try thing(id: id, owner: owner) else { return nil }
        guard found.lastUsed < now else { return found }
        let isMarked = try database.mark { db in
            try db.execute(
                sql: "UPDATE \(name) SET last_used = max(last_used, ?) WHERE id = ? AND owner = ?",
                arguments: [now, id, owner])
        }
        if isMarked { found.lastUsed = now }
        return found
    }

    /// Deletes a thing; one that runs then finds that its cancellation is requested.
    ///
    /// - Returns: Whether there was one.
    @available(*, noasync, message: "blocks")
    public func delete(id: String, owner: String) throws(SessionStoreError) -> Bool {
        try database.write { db in
            try db.execute(sql: "DELETE FROM \(name) WHERE id = ? AND owner = ?", arguments: [id, owner])
            return db.changesCount > 0
        }
    }

    /// Asks for the end of a thing; without effect on one that has ended.
    ///
    /// - Returns: The thing as it is now: its state shows whether it had ended before. Nil when there is none.
    @available(*, noasync, message: "blocks")
    public func requestCancel(id: String, owner: String) throws(SessionStoreError) -> Thing? {
        try database.write { db in
            try db.execute(
                sql: "UPDATE \(name) SET cancel_requested = 1 WHERE id = ? AND owner = ? AND state IN (\(open))",
                arguments: [id, owner])
        }
        return try thing(id: id, owner: owner)
    }

    /// Whether a run should stop: its end was asked for, it was deleted, or somebody else ended it.
    ///
    /// Cheap: one look-up in memory.
    @available(*, noasync, message: "blocks")
    public func isCancelRequested(id: String) throws(SessionStoreError) -> Bool {
        try database.read { db in
            let isWanted = try Bool.fetchOne(
                db.cachedStatement(
                    sql: "SELECT cancel_requested = 0 AND state IN (\(open)) FROM \(name) WHERE id = ?"),
                arguments: [id])
            return isWanted != true
        }
    }

    /// Ends every thing whose runner is dead, and counts that as a use; each is ended, and named, by one process.
    ///
    /// - Parameters:
    ///   - now: Seconds since 1970.
    ///   - isAlive: Whether the process with this number and start time lives.
    ///   - end: The terminal state of a thing, and what its columns then hold; asked outside of the transaction, by every
    ///     process that looks. Nil leaves it as it is.
    /// - Returns: The ids of those that it ended.
    @available(*, noasync, message: "blocks")
    func endAbandoned(
        now: Int, isAlive: (_ pid: Int32, _ startTime: UInt64) -> Bool,
        end: (_ id: String, _ owner: String) throws(SessionStoreError) -> (
            state: Thing.State, texts: [String: String?]
        )?
    ) throws(SessionStoreError) -> [String] {
        let running = try database.read { db in
            try Row.fetchAll(
                db, sql: "SELECT id, owner, runner_pid, runner_start_time FROM \(name) WHERE runner_pid IS NOT NULL")
        }
        var ended: [String] = []
        for row in running {
            let id: String = try database.value(row, "id")
            let pid: Int32 = try database.value(row, "runner_pid")
            let startTime: Int64 = try database.value(row, "runner_start_time")
            guard !isAlive(pid, UInt64(bitPattern: startTime)),
                let end = try end(id, try database.value(row, "owner"))
            else { continue }
            var values: [String: (any DatabaseValueConvertible)?] = [
                "id": id, "state": end.state.rawValue, "now": now, "pid": pid, "start_time": startTime,
            ]
            for (column, text) in end.texts { values.updateValue(text, forKey: column) }
            let assignments = end.texts.keys.sorted().map { "\($0) = :\($0), " }.joined()
            let isOurs = try database.write { db in
                try db.execute(
                    sql: """
                        UPDATE \(name) SET state = :state, \(assignments)last_used = max(last_used, :now),
                            runner_pid = NULL, runner_start_time = NULL
                        WHERE id = :id AND runner_pid = :pid AND runner_start_time = :start_time
                        """,
                    arguments: StatementArguments(values))
                return db.changesCount > 0
            }
            if isOurs { ended.append(id) }
        }
        return ended
    }

    /// Removes things that nobody used for long, the oldest first, and gives some disk space back.
    ///
    /// - Parameters:
    ///   - unusedSince: Seconds since 1970; what was used then or later stays, and what has a runner.
    ///   - limit: How many at most.
    /// - Returns: The ids of those that are gone; as many as `limit` when there may be more.
    @available(*, noasync, message: "blocks")
    public func removeExpired(unusedSince: Int, limit: Int) throws(SessionStoreError) -> [String] {
        let rows = try database.removeInBatches(limit: limit, givesSpaceBack: true) { db in
            try Row.fetchAll(
                db.cachedStatement(
                    sql: """
                        DELETE FROM \(name) WHERE rowid = (
                            SELECT rowid FROM \(name) WHERE last_used < ? AND runner_pid IS NULL
                            ORDER BY last_used LIMIT 1)
                        RETURNING id
                        """),
                arguments: [unusedSince]
            ).first
        }
        var ids: [String] = []
        for row in rows { ids.append(try database.value(row, "id")) }
        return ids
    }

    /// Which of these ids have a row: the files of the others were left behind.
    @available(*, noasync, message: "blocks")
    public func isKnown(ids: [String]) throws(SessionStoreError) -> Set<String> {
        try database.known(ids, sql: "SELECT 1 FROM \(name) WHERE id = ?")
    }
}
