import Admission
import Dialects
import Sessions
import Synchronization

/// The conversations that are kept for their callers, in STATE_DIR, for all responders: rows, and the files that go with them.
final class StoredSessions: Sendable {
    private static let titleCharacters = 60

    let state: StateStore
    private let hasRun: @Sendable (_ number: UInt64) -> Bool
    /// What this responder deleted while a request had it.
    private let deleted = Mutex<[StoredSession]>([])

    /// - Parameter hasRun: Whether a conversation, by its number at the gate, has a request that runs or waits.
    init(_ state: StateStore, hasRun: @escaping @Sendable (_ number: UInt64) -> Bool) {
        self.state = state
        self.hasRun = hasRun
    }

    private func isBusy(_ id: String) -> Bool { hasRun(AdmissionRequest.sessionNumber(id)) }

    private var settings: Settings { state.settings }

    /// Does something with the store.
    func use<Value>(_ body: (SessionStore) throws(SessionStoreError) -> Value) throws(APIError) -> Value {
        try state.use("Sessions", advice: "Try again later, or leave the session out.") {
            stores throws(SessionStoreError) in try body(stores.sessions)
        }
    }

    // MARK: One conversation

    /// A caller's session; anybody's for the operator, who is nil.
    ///
    /// - Throws: ``APIError`` session_not_found, also for another key's.
    func session(_ id: String, owner: String?) throws(APIError) -> StoredSession {
        let found = try use { store throws(SessionStoreError) in try store.session(id: id, owner: owner) }
        guard let found, found.lastUsed >= oldestUse else { throw Self.missing }
        return found
    }

    /// Marks a session as used now.
    func touch(_ session: StoredSession) throws(APIError) {
        try use { store throws(SessionStoreError) in
            try store.touch(id: session.id, owner: session.owner, now: WallClock.now.seconds)
        }
    }

    static let missing = APIError(
        .sessionNotFound,
        "There is no such session: it has expired or was deleted, or it is another key's. Begin a new one by leaving it out.",
        parameter: "sessionId")

    /// What was used before this has expired, whether it has been removed or not.
    private var oldestUse: Int { WallClock.now.seconds - Int(settings.sessionTTL.components.seconds) }

    /// A session that is to be begun.
    ///
    /// - Parameters:
    ///   - source: The one that it branches from.
    ///   - ownsDirectory: Whether it works in a directory of its own.
    func fresh(
        owner: String, profile: StoredSession.Profile, from source: StoredSession?, ownsDirectory: Bool
    ) -> StoredSession {
        let now = WallClock.now.seconds
        return StoredSession(
            id: UUIDText.random(), owner: owner, cliSessionID: profile == .agent ? UUIDText.random() : "",
            title: source?.title, workingDirectory: source?.workingDirectory ?? "", ownsDirectory: ownsDirectory,
            model: "", profile: profile, settings: source?.settings ?? "{}", created: now, lastUsed: now)
    }

    /// Whether a session works in its own directory.
    func worksInOwnDirectory(_ session: StoredSession) -> Bool {
        session.workingDirectory.isEmpty || session.workingDirectory == Files.resolved(directory(of: session.id))
    }

    /// Makes a session's row.
    ///
    /// - Throws: ``APIError`` session_limit_reached.
    func begin(_ session: StoredSession) throws(APIError) {
        let limit = settings.maxSessionsPerKey
        var isBegun = try use { store throws(SessionStoreError) in try store.begin(session, limit: limit) }
        if !isBegun, try removeExpired() > 0 {
            isBegun = try use { store throws(SessionStoreError) in try store.begin(session, limit: limit) }
        }
        guard isBegun else {
            throw APIError(
                .sessionLimitReached,
                "This key has all the \(limit) sessions that it may have (MAX_SESSIONS_PER_KEY). Delete some with DELETE "
                    + "/api/sessions/ID, or send `\"ephemeral\": true` to keep nothing.")
        }
    }

    /// Stores a turn.
    ///
    /// - Returns: False when the session was deleted meanwhile.
    func commit(_ session: StoredSession, _ turn: SessionTurn) throws(APIError) -> Bool {
        try use { store throws(SessionStoreError) in
            try store.commit(id: session.id, owner: session.owner, turn: turn, now: WallClock.now.seconds)
        }
    }

    /// Removes a session whose first turn came to nothing.
    func abandon(_ session: StoredSession) {
        do throws(APIError) {
            _ = try use { store throws(SessionStoreError) in try store.abandonBegun(id: session.id) }
        } catch {
            state.warn("a session that came to nothing is not removed", error)
        }
        removeFiles(session)
    }

    /// The first words of a prompt.
    func title(of run: RunRequest) -> String? {
        guard settings.keepsSessionTitles else { return nil }
        let text = run.turns.last?.blocks.compactMap { $0["type"] == "text" ? $0["text"]?.stringValue : nil }.joined(
            separator: " ")
        let words = (text ?? "").split(whereSeparator: \.isWhitespace)
        var title = ""
        for word in words {
            if title.count + word.count + 1 > Self.titleCharacters {
                if title.isEmpty { title = String(word.prefix(Self.titleCharacters)) }
                return title + "…"
            }
            title += (title.isEmpty ? "" : " ") + word
        }
        return title.isEmpty ? nil : title
    }

    // MARK: Files

    /// Where a session works that names no directory.
    func directory(of id: String) -> String { "\(settings.sessionsDirectory)/\(id)" }

    /// The CLI's record of a session.
    func transcript(_ session: StoredSession) -> SessionTranscript {
        SessionTranscript(id: session.cliSessionID, settings: settings, environment: state.environment)
    }

    /// Takes over what the CLI has written in a turn.
    func take(_ session: StoredSession, _ directory: String) throws(APIError) -> Int {
        do throws(FileError) {
            let bytes = try transcript(session).take(workingDirectory: directory)
            Files.remove(forkDirectory(of: session))
            return bytes
        } catch {
            throw APIError(.internal, "The session can't be kept on the server.", cause: "\(error)")
        }
    }

    private func forkDirectory(of session: StoredSession) -> String {
        "\(settings.transcriptsDirectory)/fork-\(session.id)"
    }

    /// Makes a branch's files as the source's are now.
    func fork(_ source: StoredSession, into session: StoredSession) throws(APIError) -> LaunchPlan.Record {
        let transcript = transcript(source)
        self.transcript(session).remove(ownDirectory: nil)
        let place = forkDirectory(of: session)
        let copy = "\(place)/\(source.cliSessionID).jsonl"
        do throws(FileError) {
            try Files.makeDirectory(place)
            if worksInOwnDirectory(source), !Files.exists(directory(of: session.id)) {
                try Files.copyTree(directory(of: source.id), to: directory(of: session.id))
            }
        } catch {
            throw APIError(
                .internal, "The session can't be branched on the server now. Try again later.", cause: "\(error)")
        }
        try transcript.copy(to: copy, bytes: source.transcriptBytes)
        return .forked(path: copy, id: session.cliSessionID)
    }

    /// Removes all files of a session; its row is gone.
    func removeFiles(_ session: StoredSession) {
        let own = directory(of: session.id)
        if session.profile == .agent {
            Files.remove(forkDirectory(of: session))
            transcript(session).remove(ownDirectory: Files.resolved(own))
            Files.remove(own)
        }
    }

    // MARK: Many

    /// A page of a key's sessions, the newest first; of all keys' for nil.
    func list(owner: String?, limit: Int, after: String?) throws(APIError) -> (sessions: [StoredSession], hasMore: Bool)
    {
        let page = try use { store throws(SessionStoreError) in
            try store.list(owner: owner, limit: limit, after: after)
        }
        let oldest = oldestUse
        return (page.sessions.filter { $0.lastUsed >= oldest }, page.hasMore)
    }

    /// What was said in a session, thinking left out.
    func messages(_ session: StoredSession) throws(APIError) -> [RunRequest.Turn] {
        if session.profile == .agent { return try transcript(session).messages(bytes: session.transcriptBytes) }
        guard let text = session.conversation, let conversation = Conversation(try StateStore.json(text)) else {
            return []
        }
        return conversation.turns.map { turn in
            RunRequest.Turn(
                role: turn.role,
                blocks: turn.blocks.filter { $0["type"] != "thinking" && $0["type"] != "redacted_thinking" })
        }
    }

    /// How many there are, as far as that can be said at once.
    var count: Int {
        guard let stores = state.storesAtOnce else { return 0 }
        return (try? stores.sessions.count(owner: nil)) ?? 0
    }

    /// Deletes a session.
    ///
    /// - Parameter owner: Nil for the operator.
    func delete(_ id: String, owner: String?) throws(APIError) {
        guard let deleted = try use({ store throws(SessionStoreError) in try store.delete(id: id, owner: owner) })
        else {
            throw Self.missing
        }
        removeFilesUnlessBusy(deleted)
    }

    /// Deletes all of a key's sessions.
    ///
    /// - Returns: How many.
    func deleteAll(owner: String) throws(APIError) -> Int {
        var count = 0
        while true {
            let deleted = try use { store throws(SessionStoreError) in try store.deleteAll(owner: owner, limit: 100) }
            deleted.forEach(removeFilesUnlessBusy)
            count += deleted.count
            if deleted.count < 100 { return count }
        }
    }

    /// Removes the files of a session whose row is gone, unless a request on it runs or waits: that one does it at its end.
    ///
    /// Who deletes: the row first, then this look. Who ends: first its place, then a look for the row, then this one. So
    /// whichever of them comes last finds the row gone and nobody busy.
    private func removeFilesUnlessBusy(_ session: StoredSession) {
        if !isBusy(session.id) { return removeFiles(session) }
        // The responder that has the request may have died, or may die before it comes to that.
        if session.profile == .agent { deleted.withLock { $0.append(session) } }
    }

    /// Removes the files of sessions that were deleted while a request had them, where none has them any more; to be called
    /// every so often.
    func removeDeleted() {
        deleted.withLock { exchange(&$0, with: []) }.forEach(removeFilesUnlessBusy)
    }

    /// Removes the files of a session that was deleted while a request on it had its place, or waited for one.
    ///
    /// For that request's end, when it has no place any more.
    func removeFilesIfDeleted(_ session: StoredSession) {
        do throws(APIError) {
            let known = try use { store throws(SessionStoreError) in try store.isKnown(ids: [session.id]) }
            if known.isEmpty { removeFilesUnlessBusy(session) }
        } catch {
            state.warn("not known whether a session was deleted", error)
        }
    }

    /// Removes some of what has expired.
    ///
    /// - Returns: How many.
    @discardableResult
    func removeExpired(limit: Int = 100) throws(APIError) -> Int {
        let longest = settings.queueTimeout + settings.requestTimeout + .seconds(5)
        let begunBefore = WallClock.now.seconds - Int(longest.components.seconds)
        let oldest = oldestUse
        let removed = try use { store throws(SessionStoreError) in
            // A run may take longer than a session is kept: it is a use all the time.
            for (id, owner) in try store.expiring(unusedSince: oldest, limit: limit) where isBusy(id) {
                try store.touch(id: id, owner: owner, now: WallClock.now.seconds)
            }
            return try store.removeExpired(unusedSince: oldest, begunBefore: begunBefore, limit: limit)
        }
        removed.forEach(removeFilesUnlessBusy)
        return removed.count
    }

    /// Removes directories and files of sessions that have no row: what a responder that died between the two has left.
    func sweep() throws(APIError) {
        let directories = Files.names(in: settings.sessionsDirectory)
        let forks = Files.names(in: settings.transcriptsDirectory).filter { $0.hasPrefix("fork-") }
        let ids = Set(directories + forks.map { String($0.dropFirst("fork-".count)) })
        let known = try use { store throws(SessionStoreError) in try store.isKnown(ids: Array(ids)) }
        for id in ids where !known.contains(id) && !isBusy(id) {
            Files.remove(directory(of: id))
            Files.remove("\(settings.transcriptsDirectory)/fork-\(id)")
        }
        let files = Files.names(in: settings.transcriptsDirectory).filter { $0.hasSuffix(".jsonl") }
        let cliIDs = files.map { String($0.dropLast(".jsonl".count)) }
        let knownFiles = try use { store throws(SessionStoreError) in try store.isKnown(cliSessionIDs: cliIDs) }
        for id in cliIDs where !knownFiles.contains(id) && UUIDText.isUUID(id) {
            SessionTranscript(id: id, settings: settings, environment: state.environment).remove(ownDirectory: nil)
        }
    }
}
