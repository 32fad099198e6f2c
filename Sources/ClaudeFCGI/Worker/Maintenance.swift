import CLinux
import Dialects
import Glibc
import Sessions

/// What is done from time to time: each responder gives memory back, and writes and removes what it could not at once; one at a
/// time removes what has expired of what is kept, a few at a time.
enum Maintenance {
    private static let batch = 100
    /// How often in that many rounds what has no row is looked for.
    private static let sweepRounds = 60
    /// How often the memory that malloc keeps for later is given back, in seconds.
    ///
    /// Each request thread has an arena, so a responder that served many would keep all that each of them once had.
    private static let releaseSeconds = 5

    /// Starts the thread; it ends with the process.
    ///
    /// - Parameter endedCount: How many requests have ended so far.
    static func start(
        _ state: StateStore, _ sessions: StoredSessions, _ runs: StoredRuns,
        endedCount: @escaping @Sendable () -> Int
    ) {
        let interval = max(1, Int(state.settings.sessionCleanupInterval.components.seconds))
        BackgroundThread.start("maintenance") {
            var round = 0
            var secondsLeft = interval
            var releasedAt = endedCount()
            // What `/health` counts is counted without waiting for the file.
            if state.exists { _ = try? state.stores() }
            while true {
                let pause = min(secondsLeft, releaseSeconds)
                sleep(UInt32(pause))
                if endedCount() != releasedAt {
                    releasedAt = endedCount()
                    clinux_release_heap()
                }
                state.writePostponed()
                sessions.removeDeleted()
                secondsLeft -= pause
                if secondsLeft > 0 { continue }
                secondsLeft = interval
                guard state.exists else { continue }
                do throws(APIError) {
                    try run(state, sessions, runs, interval: interval, sweeps: round % sweepRounds == 0)
                } catch {
                    state.warn("expired sessions not removed", error)
                }
                round += 1
            }
        }
    }

    private static func run(
        _ state: StateStore, _ sessions: StoredSessions, _ runs: StoredRuns, interval: Int, sweeps: Bool
    ) throws(APIError) {
        let isOurs = try sessions.use { store throws(SessionStoreError) in
            try store.claimMaintenance(now: WallClock.now.seconds, interval: interval)
        }
        guard isOurs else { return }
        // In small steps: a request's write waits for one of them at most.
        while try sessions.removeExpired(limit: batch) == batch { usleep(10_000) }
        try runs.endAbandoned()
        try runs.removeExpired(limit: batch)
        let oldest = WallClock.now.seconds - Int(state.settings.sessionTTL.components.seconds)
        _ = try state.use("Stored responses", advice: "") { stores throws(SessionStoreError) in
            try stores.responses.removeExpired(unusedSince: oldest, limit: batch)
        }
        if sweeps {
            try sessions.sweep()
            try runs.sweep()
        }
    }
}
