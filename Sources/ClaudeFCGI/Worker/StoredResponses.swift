import Dialects
import Glibc
import Logging
import ProcessControl
import Sessions
import Synchronization

/// The responses that are kept for their callers, in STATE_DIR, for all responders.
///
/// Opened when first needed: who never uses the Responses API has no database.
final class StoredResponses: Sendable {
    private let settings: Settings
    private let logger: Logger
    private let opened = Mutex<ResponseStore?>(nil)
    private let cleaned = Mutex<ContinuousClock.Instant>(.now)

    init(settings: Settings, logger: Logger) {
        self.settings = settings
        self.logger = logger
    }

    /// Does something with the store; a store that fails is a fault of the service's.
    func use<Value>(_ body: (ResponseStore) throws(SessionStoreError) -> Value) throws(APIError) -> Value {
        do throws(SessionStoreError) {
            return try body(try store())
        } catch {
            throw APIError(
                error.isBusy ? .unavailable : .internal,
                "Stored responses can't be reached on the server. Send `store: false` and the whole conversation, or try "
                    + "again later.", retryAfterSeconds: error.isBusy ? 2 : nil, cause: "\(error)")
        }
    }

    private func store() throws(SessionStoreError) -> ResponseStore {
        let result: Result<ResponseStore, SessionStoreError> = opened.withLock { opened in
            if let opened { return .success(opened) }
            do throws(SessionStoreError) {
                try? Files.makeDirectory(settings.stateDirectory)
                let store = try ResponseStore(path: settings.stateDirectory + "/sessions.db")
                opened = store
                return .success(store)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// A caller's response; one whose runner has died is failed by then.
    ///
    /// - Throws: ``APIError`` not_found, also for another key's.
    func response(_ id: String, owner: String) throws(APIError) -> StoredResponse {
        var found = try use { store throws(SessionStoreError) in
            try store.response(id: id, owner: owner, now: WallClock.now.seconds)
        }
        if let row = found, !row.state.isTerminal {
            try failAbandoned()
            found = try use { store throws(SessionStoreError) in
                try store.response(id: id, owner: owner, now: WallClock.now.seconds)
            }
        }
        guard let found else { throw Self.missing }
        return found
    }

    /// What is answered for a response that is not there.
    static var missing: APIError {
        APIError(
            .notFound,
            "There is no such response: it was never stored, has expired or was deleted, or it is another key's.",
            parameter: "response_id")
    }

    private func failAbandoned() throws(APIError) {
        let error = APIError(.internal, "The part of the service that ran the response ended. Send the request again.")
        _ = try use { store throws(SessionStoreError) in
            try store.failAbandoned(
                now: WallClock.now.seconds,
                isAlive: { pid, startTime in ProcessIdentity.startTime(of: pid) == startTime },
                failedResponse: { row in
                    let response = (try? JSONParser.parse(Array(row.response.utf8))) ?? [:]
                    return Self.text(ResponsesReply.changed(response, to: .failed, error: error))
                })
        }
    }

    /// Stores a new response, and makes room for it.
    func insert(_ response: StoredResponse) throws(APIError) {
        try use { store throws(SessionStoreError) in
            try store.insert(response)
            _ = try store.removeOldest(owner: response.owner, keeping: settings.maxSessionsPerKey)
        }
        cleanUp()
    }

    /// Removes what has expired, once in an interval.
    private func cleanUp() {
        let isDue = cleaned.withLock { last in
            guard last + settings.sessionCleanupInterval <= .now else { return false }
            last = .now
            return true
        }
        guard isDue else { return }
        let oldest = WallClock.now.seconds - Int(settings.sessionTTL.components.seconds)
        do throws(APIError) {
            _ = try use { store throws(SessionStoreError) in try store.removeExpired(unusedSince: oldest, limit: 200) }
        } catch {
            logger.warning("expired responses not removed", metadata: [LogKey.errorCause: "\(error.cause ?? "")"])
        }
    }

    /// Writes how a response ended; a failure is logged, because the caller has the answer.
    func finish(_ id: String, _ state: StoredResponse.State, _ response: JSONValue, _ conversation: JSONValue?) {
        do throws(APIError) {
            _ = try use { store throws(SessionStoreError) in
                try store.update(
                    id: id, state: state, response: Self.text(response), conversation: conversation.map(Self.text),
                    now: WallClock.now.seconds)
            }
        } catch {
            logger.warning("response not stored", metadata: [LogKey.errorCause: "\(error.cause ?? "")"])
        }
    }

    /// Stores a response that is whole; a failure is logged, because the caller has the answer.
    func keep(_ response: StoredResponse) {
        do throws(APIError) {
            try insert(response)
        } catch {
            logger.warning("response not stored", metadata: [LogKey.errorCause: "\(error.cause ?? "")"])
        }
    }

    /// JSON as the store keeps it.
    static func text(_ json: JSONValue) -> String { String(decoding: JSONWriter.bytes(json), as: UTF8.self) }
}
