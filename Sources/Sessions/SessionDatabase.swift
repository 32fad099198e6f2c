// How `sessions.db` is opened and used.
//
// Several responders, and several threads of each, read and write one SQLite file in WAL mode: readers never wait for a
// writer. Each process has two connections, one that writes and one that reads, so a poll for a cancellation does not
// stand behind somebody's write to the disk. Caches are small: rows are read once, and the kernel caches the file.
//
// A write takes the lock at its start (BEGIN IMMEDIATE), so a transaction never fails half-way because another process
// wrote meanwhile. It is on the disk before the call returns (synchronous = FULL), except for marks of use, whose loss
// costs nothing that was promised.
//
// A call waits for another process's lock until a deadline counted from the call's start, its wait for this process's
// other threads included: behind a stuck process N threads fail together, not one after the other.

import Glibc
internal import GRDB
import Synchronization

/// This process's connections to `sessions.db`; its stores share them.
public final class SessionDatabase: Sendable {
    /// Where the file is.
    public let path: String
    /// The connections; what is done with them goes through the calls below.
    let pool: DatabasePool
    private let lockWait: LockWait
    private let patience: Duration

    /// Opens the file, and makes or migrates it where needed.
    ///
    /// - Parameters:
    ///   - path: The file, in an existing directory; a new one is readable by its owner only.
    ///   - patience: How long a call waits while another process has the file locked, before it fails as busy.
    ///   - openingPatience: How long this call does so; nil for the same time.
    @available(*, noasync, message: "blocks")
    public init(
        path: String, patience: Duration = .seconds(2), openingPatience: Duration? = nil
    ) throws(SessionStoreError) {
        self.path = path
        self.patience = patience
        let lockWait = LockWait(deadline: .now + (openingPatience ?? patience))
        self.lockWait = lockWait
        try Self.createPrivately(path)
        do {
            pool = try Self.open(path, lockWait: lockWait, patience: patience)
            // GRDB leaves the connection at NORMAL.
            try pool.writeWithoutTransaction { db in try db.execute(sql: "PRAGMA synchronous = FULL") }
            try SessionSchema.migrate(pool)
        } catch {
            throw SessionStoreError(error, path: path)
        }
    }

    /// Reads one consistent state.
    @available(*, noasync, message: "blocks")
    func read<Value>(_ body: (Database) throws -> Value) throws(SessionStoreError) -> Value {
        do { return try pool.read(body) } catch { throw SessionStoreError(error, path: path) }
    }

    /// Runs one transaction: all of it happens, or, when this throws, nothing.
    ///
    /// - Parameter reachesDisk: It survives a power failure from the return on; otherwise only this process's death.
    @available(*, noasync, message: "blocks")
    func write<Value>(
        reachesDisk: Bool = true, _ body: (Database) throws -> Value
    ) throws(SessionStoreError) -> Value {
        let deadline = ContinuousClock.now + patience
        do {
            return try pool.writeWithoutTransaction { db in
                lockWait.deadline = deadline
                try db.execute(sql: reachesDisk ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL")
                return try db.inImmediateTransaction(body)
            }
        } catch {
            throw SessionStoreError(error, path: path)
        }
    }

    /// Writes a mark of use, whose loss costs nothing that was promised; it is left out where it can't be written now.
    ///
    /// - Returns: Whether it was written.
    @available(*, noasync, message: "blocks")
    @discardableResult
    func mark(_ body: (Database) throws -> Void) throws(SessionStoreError) -> Bool {
        do throws(SessionStoreError) {
            try write(reachesDisk: false, body)
            return true
        } catch {
            guard error.isFull || error.isBusy || error.isReadOnly else { throw error }
            return false
        }
    }

    /// Which of these values a statement finds a row for; other reads get their turn in between.
    @available(*, noasync, message: "blocks")
    func known(_ values: [String], sql: String) throws(SessionStoreError) -> Set<String> {
        var known: Set<String> = []
        for start in stride(from: 0, to: values.count, by: 500) {
            known.formUnion(
                try read { db in
                    let statement = try db.cachedStatement(sql: sql)
                    return try values[start...].prefix(500).filter { value in
                        try Bool.fetchOne(statement, arguments: [value]) == true
                    }
                })
        }
        return known
    }

    /// What a column holds, not by the row's subscript: it ends the process when a damaged file has another type there.
    func value<Value: DatabaseValueConvertible & StatementColumnConvertible>(
        _ row: Row, _ column: String
    ) throws(SessionStoreError) -> Value {
        do {
            return try row.decode(forColumn: column)
        } catch {
            // The error itself shows the row.
            throw .unreadable(path: path, column: column)
        }
    }

    /// Makes an empty file that only its owner reads; SQLite gives its companions the same mode.
    ///
    /// Not by open(2): to close any descriptor of the file would drop the locks that SQLite has on it in this process.
    private static func createPrivately(_ path: String) throws(SessionStoreError) {
        guard unsafe mknod(path, S_IFREG | 0o600, 0) != 0 else { return }
        let number = errno
        guard number == EEXIST else { throw .cannotOpen(path: path, errno: number) }
    }

    private static func open(_ path: String, lockWait: LockWait, patience: Duration) throws -> DatabasePool {
        var configuration = Configuration()
        configuration.label = "sessions"
        configuration.maximumReaderCount = 1
        configuration.busyMode = .callback { tries in lockWait.shouldTryAgain(after: tries) }
        configuration.prepareDatabase { db in
            try db.execute(
                sql: """
                    PRAGMA cache_size = -512;
                    PRAGMA secure_delete = ON;
                    PRAGMA journal_size_limit = 4194304;
                    """)
            if db.configuration.readonly {
                // A reader only ever waits while another process recovers or removes the log; GRDB's own limit is 10 s.
                try db.execute(sql: "PRAGMA busy_timeout = \(Int(patience / .milliseconds(1)))")
            } else if try Int.fetchOne(db, sql: "PRAGMA page_count") == 0 {
                // Can only be chosen before the first page is written: freed pages can be given back to the disk.
                try db.execute(sql: "PRAGMA auto_vacuum = INCREMENTAL")
            }
        }
        while true {
            do {
                return try DatabasePool(path: path, configuration: configuration)
            } catch let error as DatabaseError where error.resultCode == .SQLITE_BUSY {
                // Two processes that switch a new file to WAL: SQLite tells one of them at once, to avoid a deadlock.
                guard lockWait.shouldTryAgain(after: 10) else { throw error }
            }
        }
    }
}

/// How long the connection that writes still waits for another process.
private final class LockWait: Sendable {
    private let state: Mutex<ContinuousClock.Instant>

    init(deadline: ContinuousClock.Instant) { state = Mutex(deadline) }

    /// When to give up; the connection serves one call at a time, which sets it.
    var deadline: ContinuousClock.Instant {
        get { state.withLock { $0 } }
        set { state.withLock { $0 = newValue } }
    }

    /// Sleeps a little, longer with each try; false when the time is up.
    func shouldTryAgain(after tries: Int) -> Bool {
        guard ContinuousClock.now < deadline else { return false }
        usleep(UInt32(clamping: min(tries + 1, 10) * 1000))
        return true
    }
}

extension Database {
    /// One transaction that has the write lock from its start.
    fileprivate func inImmediateTransaction<Value>(_ body: (Database) throws -> Value) throws -> Value {
        var value: Value?
        try inTransaction(.immediate) {
            value = try body(self)
            return .commit
        }
        guard let value else { preconditionFailure("a transaction that was committed has run") }
        return value
    }
}
