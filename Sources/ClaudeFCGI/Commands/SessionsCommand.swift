import Admission
import ArgumentParser
import Dialects
import Logging
import Sessions

/// `claude-fcgi sessions`: the conversations that are kept, of all keys.
struct SessionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sessions", abstract: "List, show and delete the conversations that are kept.",
        discussion: "Sessions of every key. What was said in them is shown by `show`, to whoever may read STATE_DIR.",
        subcommands: [List.self, Show.self, Delete.self])

    /// The service's sessions, as its user sees them.
    static func sessions() throws -> StoredSessions? {
        let settings = try Settings(environment: try DotEnv.environment())
        let state = StateStore(
            settings: settings, environment: ClaudeEnvironment(service: settings.environment),
            logger: settings.makeLogger())
        guard state.exists else { return nil }
        return StoredSessions(state) { number in
            guard let board = try? AdmissionGate.scoreboard(path: settings.segmentPath) else { return false }
            return board.requests.contains { $0.session == number }
        }
    }

    /// Does something, and tells a failure in the operator's words.
    static func told<Value>(_ body: () throws(APIError) -> Value) throws -> Value {
        do throws(APIError) {
            return try body()
        } catch {
            throw ValidationError(error.cause ?? error.message)
        }
    }

    /// `claude-fcgi sessions list`.
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List sessions, the newest first.")

        @Option(help: "Of this key only.") var key: String?
        @Option(help: "At most so many.") var limit = 100
        @Flag(help: "As JSON, an array.") var json = false

        func run() throws {
            let sessions = try sessions()
            let found = try told { () throws(APIError) in
                try sessions?.list(owner: key, limit: max(1, limit), after: nil).sessions ?? []
            }
            if json {
                let entries = JSONValue.array(found.map { SessionJSON.entry($0, owner: $0.owner) })
                print(StateStore.text(entries))
                return
            }
            let rows = found.map { session in
                [
                    session.id, session.owner, session.profile.rawValue, "\(session.turns)",
                    Timestamp.text(session.lastUsed), session.title ?? "-",
                ]
            }
            print(
                StatusReport.columns([["ID", "KEY", "PROFILE", "TURNS", "LAST USED", "TITLE"]] + rows), terminator: "")
        }
    }

    /// `claude-fcgi sessions show ID`.
    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show a session with its messages, as JSON.")

        @Argument(help: "The session's id.") var id: String

        func run() throws {
            let sessions = try sessions()
            let entry = try told { () throws(APIError) in
                guard let sessions else { throw StoredSessions.missing }
                let session = try sessions.session(id, owner: nil)
                return SessionJSON.entry(session, messages: try sessions.messages(session), owner: session.owner)
            }
            print(StateStore.text(entry))
        }
    }

    /// `claude-fcgi sessions delete ID…`.
    struct Delete: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Delete sessions and all that is kept of them.")

        @Argument(help: "Sessions' ids.") var ids: [String]

        func run() throws {
            let sessions = try sessions()
            for id in ids {
                try told { () throws(APIError) in
                    guard let sessions else { throw StoredSessions.missing }
                    try sessions.delete(id, owner: nil)
                }
                print("deleted \(id)")
            }
        }
    }
}
