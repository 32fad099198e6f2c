import Dialects
import Glibc
import Sessions

/// Removes what has expired of what is kept, from time to time: one responder at a time, a few at a time.
enum Maintenance {
    private static let batch = 100
    /// How often in that many rounds what has no row is looked for.
    private static let sweepRounds = 60

    /// Starts the thread; it ends with the process.
    static func start(_ state: StateStore, _ sessions: StoredSessions, _ runs: StoredRuns) {
        let interval = state.settings.sessionCleanupInterval
        BackgroundThread.start("maintenance") {
            var round = 0
            // What `/health` counts is counted without waiting for the file.
            if state.exists { _ = try? state.stores() }
            while true {
                sleep(UInt32(interval.components.seconds))
                guard state.exists else { continue }
                do throws(APIError) {
                    try run(state, sessions, runs, sweeps: round % sweepRounds == 0)
                } catch {
                    state.warn("expired sessions not removed", error)
                }
                round += 1
            }
        }
    }

    private static func run(
        _ state: StateStore, _ sessions: StoredSessions, _ runs: StoredRuns, sweeps: Bool
    ) throws(APIError) {
        let interval = max(1, Int(state.settings.sessionCleanupInterval.components.seconds))
        let isOurs = try sessions.use { store throws(SessionStoreError) in
            try store.claimMaintenance(now: WallClock.now.seconds, interval: interval)
        }
        guard isOurs else { return }
        // In small steps: a request's write waits for one of them at most.
        while try sessions.removeExpired(limit: batch) == batch { usleep(10_000) }
        try runs.failAbandoned()
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
