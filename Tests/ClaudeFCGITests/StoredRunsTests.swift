import Dialects
import Glibc
import ProcessControl
import Sessions
import Testing

@testable import ClaudeFCGI

/// The runs of a service, and a process that is taken for the responder of one.
private final class Bench {
    let base: TemporaryDirectory
    let runs: StoredRuns

    init() throws {
        base = try TemporaryDirectory()
        let settings = try Settings(environment: ["STATE_DIR": base.path + "/state", "PROXY_API_KEY": "k"])
        try Files.makeDirectory(settings.backgroundDirectory)
        runs = StoredRuns(
            StateStore(
                settings: settings, environment: ClaudeEnvironment(service: settings.environment),
                logger: settings.makeLogger()))
    }

    /// A run whose responder is this process, with its first event.
    func begin(_ id: String, pid: Int32, events: String = "id: 1\ndata: {}\n\n") throws {
        let now = WallClock.now.seconds
        let run = StoredRun(
            id: id, owner: "k", state: .running, created: now, lastUsed: now, runnerPID: pid,
            runnerStartTime: ProcessIdentity.startTime(of: pid) ?? 1, progress: "{}")
        try runs.use { store throws(SessionStoreError) in try store.insert(run) }
        try Files.replace(runs.eventsPath(id), with: Array(events.utf8))
    }

    func events(_ id: String) throws -> String { try Files.read(runs.eventsPath(id), limitBytes: 9999) }
}

@Suite struct StoredRunsTests {
    @Test func `a run goes on as long as its responder lives`() throws {
        let bench = try Bench()
        try bench.begin("one", pid: getpid())
        #expect(try bench.runs.run("one", owner: "k").state == .running)
        #expect(try bench.events("one") == "id: 1\ndata: {}\n\n")
    }

    /// Whoever started the responder may take its time to reap it.
    @Test func `a run whose responder was killed fails before that is reaped`() throws {
        let bench = try Bench()
        var responder = try ChildProcess(
            ChildCommand(executable: "/bin/sleep", arguments: ["300"], environment: [], directory: "/"))
        try bench.begin("one", pid: responder.pid)
        #expect(try bench.runs.run("one", owner: "k").state == .running)
        responder.signalGroup(SIGKILL)
        var entry = pollfd(fd: responder.exitDescriptor, events: Int16(POLLIN), revents: 0)
        #expect(unsafe poll(&entry, 1, 10_000) == 1)
        #expect(ProcessIdentity.startTime(of: responder.pid) != nil, "it is reaped")
        #expect(try bench.runs.run("one", owner: "k").state == .failed)
        #expect(try bench.events("one").contains("id: 2\nevent: error\n"))
        #expect(responder.waitForExit(timeout: .seconds(10)) == .signaled(number: SIGKILL))
    }

    /// Whoever wrote its end may have died between the two: what the stream has said is true.
    @Test(arguments: [
        ("result", #"{"result":"é"}"#, StoredRun.End.completed(result: #"{"result":"é"}"#)),
        ("error", #"{"code":"cli_error"}"#, .failed(error: #"{"code":"cli_error"}"#)),
        ("error", #"{"code":"cancelled"}"#, .cancelled(error: #"{"code":"cancelled"}"#)),
        ("error", "{}", .failed(error: "{}")),
    ])
    func `a run whose stream has its end and whose row does not ends as the stream says`(
        _ name: String, _ data: String, _ end: StoredRun.End
    ) throws {
        let bench = try Bench()
        let events = "id: 1\nevent: text\ndata: {}\n\nid: 2\nevent: \(name)\ndata: \(data)\n\n"
        try bench.begin("one", pid: pid_t.max, events: events)
        let run = try bench.runs.run("one", owner: "k")
        #expect(run.state == end.state && run.result == end.result && run.error == end.error)
        #expect(try bench.events("one") == events)
    }

    @Test func `a run without events fails all the same`() throws {
        let bench = try Bench()
        try bench.begin("one", pid: pid_t.max)
        Files.remove(bench.runs.eventsPath("one"))
        #expect(try bench.runs.run("one", owner: "k").state == .failed)
    }
}
