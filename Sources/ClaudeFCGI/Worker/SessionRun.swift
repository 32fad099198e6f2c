// One request's part in a stored conversation.
//
// The row is there before the run: so the key's limit holds for requests that come together, and what a dead responder has
// left has a name. A turn is stored once its answer is whole; until then the conversation is as it was before. What the row
// says is read when the run has its place, because the request before it may have changed it; what it said before only tells
// which responder has the chat's process.
//
//   agent   the CLI's own record, a file (SessionTranscript); the process is started on it
//   chat    the conversation stands in the row and is fed to the process as history

import Admission
import Dialects
import Sessions

/// A request that continues, begins or branches a stored conversation; nothing at all where none is wanted.
final class SessionRun {
    private let sessions: StoredSessions
    private let client: Client
    private let profile: StoredSession.Profile
    /// The conversation's public id; nil where nothing is kept.
    private(set) var id: String?
    /// What was found, or begun.
    private var session: StoredSession?
    /// The conversation that is branched.
    private var source: StoredSession?
    /// A chat's conversation as it was read last, and after how many turns.
    private var known: (conversation: Conversation, turns: Int)?
    private var isBegun = false
    private var isOver = false
    /// What the caller asked for that later requests are to go on with.
    private var settings = SessionSettings()
    /// What the CLI was told, for the chat's next turn.
    private var request: RunRequest?
    private var title: String?

    /// - Parameter run: Gets what the session keeps of earlier requests and this one leaves open.
    /// - Throws: ``APIError``: session_not_found, session_limit_reached, or that sessions can't be reached.
    init(_ run: inout RunRequest, of client: Client, in sessions: StoredSessions) throws(APIError) {
        self.sessions = sessions
        self.client = client
        profile = run.profile == .chat ? .chat : .agent
        switch run.session {
        case .none: return
        case .new:
            do throws(APIError) {
                try begin(ownsDirectory: run.profile.namesNoDirectory)
            } catch {
                // The run itself needs no session.
                guard error.kind != .sessionLimitReached else { throw error }
                sessions.state.warn("session not kept", error)
                return
            }
        case .existing(let id, let forks):
            let found = try Self.found(id, client, sessions, profile)
            guard found.profile == profile else {
                throw APIError(
                    .invalidRequest,
                    found.profile == .chat
                        ? "The session was begun by a chat API and is continued there. Leave it out here, or send this to "
                            + "/v1/chat/completions or /v1/messages."
                        : "The session was begun by POST /api/run and is continued there.",
                    parameter: profile == .chat ? "session_id" : "sessionId")
            }
            settings = SessionSettings(found.settings)
            session = found
            self.id = found.id
            if forks {
                source = found
                try begin(ownsDirectory: run.profile.namesNoDirectory && sessions.worksInOwnDirectory(found))
            }
        }
        title = sessions.title(of: run)
        if case .agent(var agent) = run.profile {
            settings.inherit(&run, &agent)
            if agent.workingDirectory == nil, let last = source ?? session, !sessions.worksInOwnDirectory(last) {
                agent.workingDirectory = last.workingDirectory
            }
            run.profile = .agent(agent)
        } else {
            settings.inherit(&run)
        }
    }

    private static func found(
        _ id: String, _ client: Client, _ sessions: StoredSessions, _ profile: StoredSession.Profile
    ) throws(APIError) -> StoredSession {
        do throws(APIError) {
            return try sessions.session(id, owner: client.name)
        } catch {
            // Under the name that the caller's API has for it.
            var error = error
            if profile == .chat, error.parameter == "sessionId" { error.parameter = "session_id" }
            throw error
        }
    }

    private func begin(ownsDirectory: Bool) throws(APIError) {
        let new = sessions.fresh(
            owner: client.name, profile: profile, from: source, ownsDirectory: profile == .agent && ownsDirectory)
        try sessions.begin(new)
        session = new
        id = new.id
        isBegun = true
    }

    /// The session's own directory; nil where the caller named one or nothing is kept.
    var ownDirectory: String? { id.map { sessions.directory(of: $0) } }

    /// What the pipeline does for the session.
    func hooks() -> RunHooks {
        var hooks = RunHooks()
        guard id != nil else { return hooks }
        hooks.sessionID = id
        hooks.prepare = { plan throws(APIError) in try self.prepare(plan) }
        hooks.leaves = { self.end() }
        if profile == .agent {
            hooks.settle = { answer, directory throws(APIError) in try self.settle(answer, directory) }
        } else {
            hooks.foresee = { self.foresee($0) }
            hooks.keep = { answer throws(APIError) in try self.keep(answer) }
            hooks.reported = { summary in self.addCost(summary) }
        }
        return hooks
    }

    /// A chat's request with the conversation as it was found; what is wrong with it is said when the place has come.
    private func foresee(_ run: RunRequest) -> RunRequest? {
        guard let found = isBegun ? source : session else { return run }
        return try? run.continuing(try conversation(found))
    }

    /// How the CLI is started for the session's next turn.
    private func prepare(_ plan: LaunchPlan) throws(APIError) -> LaunchPlan {
        guard let id, var session else { return plan }
        var plan = plan
        if isBegun {
            if let source {
                let now = try sessions.session(source.id, owner: client.name)
                if profile == .agent {
                    plan.record = try sessions.fork(now, into: session)
                } else {
                    plan.request = try plan.request.continuing(try conversation(now))
                }
            } else if profile == .agent {
                // What a failed attempt has left.
                sessions.transcript(session).remove(ownDirectory: nil)
                plan.record = .new(id: session.cliSessionID)
            }
        } else {
            session = try sessions.session(id, owner: client.name)
            self.session = session
            try sessions.touch(session)
            if profile == .agent {
                let transcript = sessions.transcript(session)
                try transcript.cut(toBytes: session.transcriptBytes)
                plan.record = .resumed(path: transcript.path)
            } else {
                plan.request = try plan.request.continuing(try conversation(session))
            }
        }
        if profile == .agent, plan.directory == .fresh { plan.directory = .own(sessions.directory(of: id)) }
        request = plan.request
        return plan
    }

    private func conversation(_ session: StoredSession) throws(APIError) -> Conversation {
        guard let text = session.conversation else { return Conversation() }
        // Each turn that is stored is counted.
        if let known, known.turns == session.turns { return known.conversation }
        guard let conversation = Conversation(try StateStore.json(text)) else {
            throw APIError(
                .internal, "What is stored of the session can't be read. Delete it.", parameter: "session_id")
        }
        known = (conversation, session.turns)
        return conversation
    }

    /// Stores an agent's turn.
    private func settle(_ answer: Answer, _ directory: String) throws(APIError) -> Bool {
        guard let session else { return false }
        do throws(APIError) {
            let bytes = try sessions.take(session, directory)
            // A CLI that can't write to its record says nothing of it.
            guard bytes > session.transcriptBytes else {
                throw APIError(
                    .internal, "The session can't be kept on the server. Run `claude-fcgi check` there.",
                    cause: "the CLI has added nothing to the transcript")
            }
            var turn = turn(answer)
            turn.workingDirectory = directory
            turn.transcriptBytes = bytes
            return try commit(turn)
        } catch {
            // What was begun can be done without; a conversation that exists would go on without this turn.
            guard isBegun, source == nil else { throw error }
            sessions.state.warn("session not kept", error)
            return false
        }
    }

    /// Stores a chat's turn.
    private func keep(_ answer: Answer) throws(APIError) {
        guard let request else { return }
        do throws(APIError) {
            var turn = turn(answer)
            turn.conversation = StateStore.text(request.conversation(with: answer).json)
            _ = try commit(turn)
        } catch {
            guard isBegun, source == nil else { throw error }
            sessions.state.warn("session not kept", error)
        }
    }

    /// Adds what a chat's turn has cost: the CLI says so behind the answer.
    private func addCost(_ summary: RunSummary) {
        guard let session, let cost = summary.costUSD, cost > 0 else { return }
        do throws(APIError) {
            try sessions.use { store throws(SessionStoreError) in
                try store.addCost(id: session.id, owner: session.owner, costUSD: cost)
            }
        } catch {
            sessions.state.warn("a turn's cost is not kept", error)
        }
    }

    private func turn(_ answer: Answer) -> SessionTurn {
        let usage = answer.summary?.usage ?? answer.usage
        return SessionTurn(
            cliSessionID: session?.cliSessionID ?? "", model: answer.model, settings: settings.text,
            title: session?.title ?? title, inputTokens: usage.input,
            outputTokens: usage.output, cacheReadTokens: usage.cacheRead, cacheCreationTokens: usage.cacheCreation,
            costUSD: profile == .agent ? answer.summary?.costUSD ?? 0 : 0)
    }

    private func commit(_ turn: SessionTurn) throws(APIError) -> Bool {
        guard let session else { return false }
        let isKept = try sessions.commit(session, turn)
        if isKept { isBegun = false } else { sessions.removeFiles(session) }
        return isKept
    }

    /// The run is over and has no place any more, or is another responder's.
    ///
    /// A conversation whose first turn came to nothing is none. One that was deleted while the run had its place has files.
    func end() {
        guard !isOver, let session else { return }
        isOver = true
        if isBegun {
            sessions.abandon(session)
        } else if profile == .agent {
            sessions.removeFilesIfDeleted(session)
        }
    }
}

extension RunRequest.Profile {
    /// Whether the run is to have a directory of the service's own.
    fileprivate var namesNoDirectory: Bool {
        if case .agent(let agent) = self { agent.workingDirectory == nil } else { true }
    }
}
