import Dialects
import Sessions
import Synchronization
import Testing

@testable import ClaudeFCGI

/// The sessions of a service, and whether the gate says that they have a request.
private final class Bench {
    let base: TemporaryDirectory
    let settings: Settings
    let sessions: StoredSessions
    private let busy: Busy

    private final class Busy: Sendable {
        let state = Mutex(false)
    }

    init() throws {
        base = try TemporaryDirectory()
        settings = try Settings(environment: [
            "STATE_DIR": base.path + "/state", "CLAUDE_CONFIG_DIR": base.path + "/cli", "PROXY_API_KEY": "k",
        ])
        let busy = Busy()
        self.busy = busy
        sessions = StoredSessions(
            StateStore(
                settings: settings, environment: ClaudeEnvironment(service: settings.environment),
                logger: settings.makeLogger())
        ) { _ in busy.state.withLock { $0 } }
    }

    /// A request on the session has a place, or waits for one.
    var isBusy: Bool {
        get { busy.state.withLock { $0 } }
        set { busy.state.withLock { $0 = newValue } }
    }

    var client: Client { Client(name: "k") }

    /// A request with its place, and what the pipeline does for its session.
    func request(_ session: SessionWish = .new) throws -> (SessionRun, RunHooks, LaunchPlan) {
        var request = try DirectRequest.decode(["prompt": "x"], policy: client.policy(settings))
        request.session = session
        let run = try SessionRun(&request, of: client, in: sessions)
        isBusy = true
        let hooks = run.hooks()
        guard let prepare = hooks.prepare else { throw Unexpected() }
        return (run, hooks, try prepare(LaunchPlan(request, roots: [])))
    }

    /// Has a turn stored, with a transcript of so many lines and a directory.
    func settle(_ hooks: RunHooks, _ plan: LaunchPlan, lines: Int = 1) throws -> Bool {
        let path: String
        switch plan.record {
        case .new(let id): path = "\(settings.transcriptsDirectory)/\(id).jsonl"
        case .resumed(let resumed): path = resumed
        default: throw Unexpected()
        }
        let directory = sessions.directory(of: try #require(hooks.sessionID))
        for made in [settings.transcriptsDirectory, directory] { try Files.makeDirectory(made) }
        try Files.replace(path, with: Array(String(repeating: "{}\n", count: lines).utf8))
        guard let settle = hooks.settle else { throw Unexpected() }
        return try settle(Answer(), directory)
    }

    private struct Unexpected: Error {}

    /// A session with one turn, whose request is over.
    func session() throws -> String {
        let (run, hooks, plan) = try request()
        #expect(try settle(hooks, plan))
        isBusy = false
        run.end()
        return try #require(hooks.sessionID)
    }

    /// Transcripts and directories of sessions.
    var files: [String] {
        Files.names(in: settings.transcriptsDirectory) + Files.names(in: settings.sessionsDirectory)
    }
}

@Suite struct SessionRunTests {
    @Test func `a session that is kept has its files`() throws {
        let bench = try Bench()
        let id = try bench.session()
        #expect(bench.files.count == 2)
        try bench.sessions.delete(id, owner: "k")
        #expect(bench.files == [])
    }

    /// The reply is out, and the place is given back when nothing of the process is left.
    @Test func `a session that is deleted behind the reply and before the run has ended leaves nothing`() throws {
        let bench = try Bench()
        let (run, hooks, plan) = try bench.request()
        #expect(try bench.settle(hooks, plan))
        try bench.sessions.delete(try #require(hooks.sessionID), owner: "k")
        #expect(bench.files.count == 2, "a run that goes on has lost its files")
        bench.isBusy = false
        run.end()
        #expect(bench.files == [])
    }

    @Test func `a session that is deleted during a turn leaves nothing, whether the turn is whole or not`() throws {
        for isWhole in [true, false] {
            let bench = try Bench()
            let id = try bench.session()
            let (run, hooks, plan) = try bench.request(.existing(id: id, forks: false))
            try bench.sessions.delete(id, owner: "k")
            #expect(bench.files.count == 2, "a run that goes on has lost its files")
            if isWhole { #expect(try !bench.settle(hooks, plan, lines: 2)) }
            bench.isBusy = false
            run.end()
            #expect(bench.files == [])
        }
    }

    @Test func `of several requests the last one removes the files`() throws {
        let bench = try Bench()
        let id = try bench.session()
        let (first, _, _) = try bench.request(.existing(id: id, forks: false))
        let (second, _, _) = try bench.request(.existing(id: id, forks: false))
        try bench.sessions.delete(id, owner: "k")
        first.end()
        #expect(bench.files.count == 2, "a run that goes on has lost its files")
        bench.isBusy = false
        second.end()
        #expect(bench.files == [])
    }

    @Test func `a session that all are deleted with leaves nothing either`() throws {
        let bench = try Bench()
        let (run, hooks, plan) = try bench.request()
        #expect(try bench.settle(hooks, plan))
        #expect(try bench.sessions.deleteAll(owner: "k") == 1)
        bench.isBusy = false
        run.end()
        #expect(bench.files == [])
    }

    @Test func `a first turn that comes to nothing leaves nothing`() throws {
        let bench = try Bench()
        let (run, hooks, _) = try bench.request()
        try Files.makeDirectory(bench.sessions.directory(of: try #require(hooks.sessionID)))
        bench.isBusy = false
        run.end()
        #expect(bench.files == [] && bench.sessions.count == 0)
    }
}
