import Dialects
import ProcessControl
import Sessions

/// The responses that are kept for their callers, in STATE_DIR, for all responders.
final class StoredResponses: Sendable {
    private let state: StateStore

    init(_ state: StateStore) { self.state = state }

    /// Does something with the store.
    func use<Value>(_ body: (ResponseStore) throws(SessionStoreError) -> Value) throws(APIError) -> Value {
        try state.use(
            "Stored responses", advice: "Send `store: false` and the whole conversation, or try again later."
        ) { stores throws(SessionStoreError) in try body(stores.responses) }
    }

    /// A caller's response; one whose runner has died is failed by then.
    ///
    /// - Throws: ``APIError`` not_found, also for another key's.
    func response(_ id: String, owner: String) throws(APIError) -> StoredResponse {
        var found = try use { store throws(SessionStoreError) in
            try store.read(id: id, owner: owner, now: WallClock.now.seconds)
        }
        if let row = found, !row.state.isTerminal {
            try failAbandoned()
            found = try use { store throws(SessionStoreError) in
                try store.read(id: id, owner: owner, now: WallClock.now.seconds)
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
                isAlive: { pid, startTime in ProcessIdentity.isAlive(pid, startTime: startTime) },
                failedResponse: { row in
                    let response = (try? JSONParser.parse(Array(row.response.utf8))) ?? [:]
                    return StateStore.text(ResponsesReply.changed(response, to: .failed, error: error))
                })
        }
    }

    /// Stores a new response, and makes room for it.
    func insert(_ response: StoredResponse) throws(APIError) {
        try use { store throws(SessionStoreError) in
            try store.insert(response)
            _ = try store.removeOldest(owner: response.owner, keeping: state.settings.maxSessionsPerKey)
        }
    }

    /// Writes that a response has begun; a failure is logged, because the run goes on.
    func begin(_ id: String, _ response: JSONValue) {
        do throws(APIError) {
            _ = try use { store throws(SessionStoreError) in
                try store.update(
                    id: id, state: .inProgress, response: StateStore.text(response), conversation: nil,
                    now: WallClock.now.seconds)
            }
        } catch {
            state.warn("response not stored", error)
        }
    }

    /// Writes how a response ended, now or as soon as that is possible.
    func finish(_ id: String, _ end: StoredResponse.State, _ response: JSONValue, _ conversation: JSONValue?) {
        state.writeEnd("end of a response not stored yet") { stores throws(SessionStoreError) in
            _ = try stores.responses.update(
                id: id, state: end, response: StateStore.text(response),
                conversation: conversation.map(StateStore.text), now: WallClock.now.seconds)
        }
    }

    /// Stores a response that is whole; a failure is logged, because the caller has the answer.
    func keep(_ response: StoredResponse) {
        do throws(APIError) {
            try insert(response)
        } catch {
            self.state.warn("response not stored", error)
        }
    }
}
