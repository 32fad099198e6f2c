// How rows are removed when there may be many.
//
// One transaction for all of them would keep every other process's write waiting, and rows may be large: what is
// deleted is overwritten. So rows go one by one, in short transactions with pauses, and others write in between.

import Glibc
internal import GRDB

extension SessionDatabase {
    /// Rows that are removed in one transaction, unless ``batchTime`` ends it before.
    private static let batchRows = 50
    /// After this time no further row is removed in the same transaction: rows may be large.
    private static let batchTime: Duration = .milliseconds(10)
    /// Between two of these transactions; whoever waits for the lock looks as often as this.
    private static let batchPause: UInt32 = 10_000
    /// Pages given back to the disk at a time: 1 MiB.
    private static let vacuumPages = 256

    /// Removes rows in transactions that keep nobody waiting for long.
    ///
    /// Rows that are removed are gone even when a later transaction fails, so they are returned then, and not the error.
    ///
    /// - Parameters:
    ///   - limit: How many at most.
    ///   - givesSpaceBack: The file shrinks by a part of what became free.
    ///   - excess: How many may go, asked in each transaction; nil for any number.
    ///   - remove: Removes one row; nil when there is none left.
    /// - Returns: What `remove` returned; fewer than `limit` when there are no more, or another process kept the lock.
    @available(*, noasync, message: "blocks")
    func removeInBatches<Removed>(
        limit: Int, givesSpaceBack: Bool, excess: ((Database) throws -> Int)? = nil,
        _ remove: (Database) throws -> Removed?
    ) throws(SessionStoreError) -> [Removed] {
        var all: [Removed] = []
        while all.count < limit {
            let batch: (removed: [Removed], isLast: Bool)
            do throws(SessionStoreError) {
                batch = try write { db in
                    let excess = try excess?(db) ?? .max
                    var batch = try Self.removeBatch(db, min(limit - all.count, Self.batchRows, excess), remove)
                    batch.isLast = batch.isLast || batch.removed.count >= excess
                    if givesSpaceBack, !batch.removed.isEmpty {
                        try db.execute(sql: "PRAGMA incremental_vacuum(\(Self.vacuumPages))")
                    }
                    return batch
                }
            } catch {
                guard !all.isEmpty else { throw error }
                return all
            }
            all += batch.removed
            if batch.isLast || all.count >= limit { break }
            usleep(Self.batchPause)
        }
        return all
    }

    private static func removeBatch<Removed>(
        _ db: Database, _ room: Int, _ remove: (Database) throws -> Removed?
    ) throws -> (removed: [Removed], isLast: Bool) {
        let end = ContinuousClock.now + batchTime
        var removed: [Removed] = []
        while removed.count < room, removed.isEmpty || ContinuousClock.now < end {
            guard let one = try remove(db) else { return (removed, true) }
            removed.append(one)
        }
        return (removed, false)
    }
}
