import Dialects
import ProcessControl
import Sessions

/// The background runs that are kept for their callers, in STATE_DIR, for all responders: rows, and the files of events.
final class StoredRuns: Sendable {
    private let state: StateStore

    init(_ state: StateStore) { self.state = state }

    /// Does something with the store.
    func use<Value>(_ body: (RunStore) throws(SessionStoreError) -> Value) throws(APIError) -> Value {
        try state.use("Background runs", advice: "Leave `background` out, or try again later.") {
            stores throws(SessionStoreError) in try body(stores.runs)
        }
    }

    /// Where a run's events are.
    func eventsPath(_ id: String) -> String { "\(state.settings.backgroundDirectory)/\(id).sse" }

    /// A caller's run; one whose responder has died has ended by then.
    ///
    /// - Throws: ``APIError`` not_found, also for another key's.
    func run(_ id: String, owner: String) throws(APIError) -> StoredRun {
        var found = try look(id, owner)
        if let row = found, !row.state.isTerminal, !Self.isAlive(row) {
            try endAbandoned()
            found = try look(id, owner)
        }
        guard let found else { throw Self.missing }
        return found
    }

    private func look(_ id: String, _ owner: String) throws(APIError) -> StoredRun? {
        try use { store throws(SessionStoreError) in
            try store.read(id: id, owner: owner, now: WallClock.now.seconds)
        }
    }

    private static func isAlive(_ run: StoredRun) -> Bool {
        guard let pid = run.runnerPID else { return true }
        return ProcessIdentity.isAlive(pid, startTime: run.runnerStartTime)
    }

    static let missing = APIError(
        .notFound, "There is no such run: it has expired, or it is another key's.", parameter: "id")

    /// Ends every run whose responder has died, and its stream; the stream says how, where it had its end.
    ///
    /// The stream first: whoever follows it in another responder has all of it once the row says that the run is over.
    func endAbandoned() throws(APIError) {
        let error = APIError(
            .internal, "The part of the service that had the run ended before the run did. Send the request again.")
        _ = try use { store throws(SessionStoreError) in
            try store.endAbandoned(
                now: WallClock.now.seconds,
                isAlive: { pid, startTime in ProcessIdentity.isAlive(pid, startTime: startTime) },
                end: { id in RunEventReader.end(path: eventsPath(id), with: error) ?? .ended(by: error) })
        }
    }

    /// Removes some of what has expired.
    func removeExpired(limit: Int = 100) throws(APIError) {
        let oldest = WallClock.now.seconds - Int(state.settings.sessionTTL.components.seconds)
        let removed = try use { store throws(SessionStoreError) in
            try store.removeExpired(unusedSince: oldest, limit: limit)
        }
        for id in removed { Files.remove(eventsPath(id)) }
    }

    /// Removes events that have no row.
    func sweep() throws(APIError) {
        let ids = Files.names(in: state.settings.backgroundDirectory).filter { $0.hasSuffix(".sse") }.map {
            String($0.dropLast(".sse".count))
        }
        let known = try use { store throws(SessionStoreError) in try store.isKnown(ids: ids) }
        for id in ids where !known.contains(id) { Files.remove(eventsPath(id)) }
    }

    /// Writes how far a run is; a failure is logged, because the run itself goes on.
    func note(_ id: String, _ progress: JSONValue) {
        do throws(APIError) {
            _ = try use { store throws(SessionStoreError) in
                try store.update(
                    id: id, state: .running, progress: StateStore.text(progress), now: WallClock.now.seconds)
            }
        } catch {
            state.warn("run not stored", error)
        }
    }

    /// Writes how a run ended, now or as soon as that is possible.
    func finish(_ id: String, _ end: StoredRun.End) {
        state.writeEnd("end of a run not stored yet") { stores throws(SessionStoreError) in
            _ = try stores.runs.finish(id: id, end, now: WallClock.now.seconds)
        }
    }
}

extension StoredRun.End {
    /// The end of a run by an error; one says that the caller ended it.
    static func ended(by error: APIError) -> StoredRun.End { ended(by: DirectReply.error(error)) }

    /// The same, by the error as it is in the run's stream.
    static func ended(by error: JSONValue) -> StoredRun.End {
        let text = StateStore.text(error)
        let isCancelled = error["code"]?.stringValue == APIError.Kind.cancelled.rawValue
        return isCancelled ? .cancelled(error: text) : .failed(error: text)
    }
}
