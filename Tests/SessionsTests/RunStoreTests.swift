import Foundation
import GRDB
import Synchronization
import Testing

@testable import Sessions

/// Ends what is abandoned and notes each that it named; as one of several processes.
private func endAbandoned(path: String, named: String) -> Bool {
    guard let store = try? RunStore(path: path, patience: .seconds(30)),
        let ids = try? store.endAbandoned(
            now: 2000, isAlive: { _, _ in false }, end: { _ in .failed(error: "{\"by\":\(getpid())}") })
    else { return false }
    let file = unsafe open(named, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    let lines = Array(ids.map { $0 + "\n" }.joined().utf8)
    return unsafe write(file, lines, lines.count) == lines.count
}

private func update(_ state: StoredRun.State) {
    _ = try? StoreBench().runs().update(id: "run_1", state: state, progress: nil, now: 1)
}

@Suite struct RunStoreTests {
    let bench: StoreBench
    let store: RunStore

    init() throws {
        bench = try StoreBench()
        store = try bench.runs()
    }

    private func found(_ id: String = "run_1") throws -> StoredRun? {
        try store.read(id: id, owner: "alice", now: 0)
    }

    // MARK: Storing

    @Test func `a run comes back as it was stored`() throws {
        var run = StoredRun.sample(state: .running)
        run.cancelRequested = true
        run.result = "{\"result\":\"é\"}"
        run.error = "{}"
        try store.insert(run)
        #expect(try found() == run)
    }

    @Test func `a run without session, result and error comes back so`() throws {
        var run = StoredRun.sample()
        run.sessionID = nil
        try store.insert(run)
        #expect(try found() == run)
    }

    @Test func `a run that has ended is stored without its runner`() throws {
        try store.insert(.sample(state: .failed))
        let run = try found()
        #expect(run != nil && run?.runnerPID == nil && run?.runnerStartTime == nil)
    }

    @Test func `another key's run does not exist`() throws {
        try store.insert(.sample())
        #expect(try store.read(id: "run_1", owner: "bob", now: 2000) == nil)
        #expect(try store.requestCancel(id: "run_1", owner: "bob") == nil)
        #expect(try !store.delete(id: "run_1", owner: "bob"))
        #expect(try found() == .sample())
    }

    @Test func `reading counts as a use, and time never goes back`() throws {
        try store.insert(.sample(used: 1000))
        #expect(try store.read(id: "run_1", owner: "alice", now: 1500)?.lastUsed == 1500)
        #expect(try store.read(id: "run_1", owner: "alice", now: 1200)?.lastUsed == 1500)
    }

    // MARK: States

    @Test func `a run goes on and is then whole`() throws {
        try store.insert(.sample())
        #expect(try store.update(id: "run_1", state: .running, progress: nil, now: 1100))
        #expect(try found()?.progress == StoredRun.sample().progress)
        #expect(try store.update(id: "run_1", state: .running, progress: "{1}", now: 1050))
        #expect(try store.finish(id: "run_1", .completed(result: "{whole}"), progress: "{2}", now: 1300))
        var expected = StoredRun.sample(state: .completed, used: 1300, runner: nil)
        (expected.progress, expected.result) = ("{2}", "{whole}")
        #expect(try found() == expected)
    }

    private static let ends: [StoredRun.End] = [
        .completed(result: "{1}"), .failed(error: "{2}"), .cancelled(error: "{3}"),
    ]

    @Test(arguments: ends, ends)
    func `the first end of a run stays`(first: StoredRun.End, second: StoredRun.End) throws {
        try store.insert(.sample(state: .running))
        #expect(try store.finish(id: "run_1", first, now: 1100))
        let ended = try found()
        #expect(ended?.state == first.state && ended?.result == first.result && ended?.error == first.error)
        #expect(try !store.finish(id: "run_1", second, now: 1200))
        for state in [StoredRun.State.queued, .running] {
            #expect(try !store.update(id: "run_1", state: state, progress: "{2}", now: 1200))
        }
        #expect(try found() == ended)
    }

    @Test func `of two that end a run at the same time one is told that it did`() throws {
        let ids = (0..<40).map { "run_\($0)" }
        for id in ids { try store.insert(.sample(id, state: .running)) }
        let stores = try (0..<2).map { _ in try bench.runs(patience: .seconds(30)) }
        let winners = Mutex<[String: [Int]]>([:])
        onThreads(2) { index in
            for id in ids {
                let error = "{\(index)}"
                let isOurs = try? stores[index].finish(
                    id: id, index == 0 ? .failed(error: error) : .cancelled(error: error), now: 1000)
                if isOurs == true { winners.withLock { $0[id, default: []].append(index) } }
            }
        }
        for id in ids {
            let winner = try #require(winners.withLock { $0[id] })
            #expect(winner.count == 1)
            #expect(try found(id)?.error == "{\(winner[0])}")
        }
    }

    @Test func `a deleted run neither goes on nor ends`() throws {
        try store.insert(.sample(state: .running))
        #expect(try store.delete(id: "run_1", owner: "alice"))
        #expect(try !store.delete(id: "run_1", owner: "alice"))
        #expect(try store.isCancelRequested(id: "run_1"))
        #expect(try !store.update(id: "run_1", state: .running, progress: "{}", now: 1000))
        #expect(try !store.finish(id: "run_1", .completed(result: "{}"), now: 1000))
        #expect(try found() == nil)
    }

    @Test func `a run ends in no other way than by its end`() async {
        await #expect(processExitsWith: .failure) { update(.completed) }
        await #expect(processExitsWith: .success) { update(.running) }
    }

    // MARK: Cancellation

    @Test(arguments: StoredRun.State.allCases)
    func `a request to cancel reaches a run that has not ended`(state: StoredRun.State) throws {
        try store.insert(.sample(state: state))
        #expect(try store.isCancelRequested(id: "run_1") == state.isTerminal)
        let asked = try bench.runs().requestCancel(id: "run_1", owner: "alice")
        #expect(asked?.state == state && asked?.cancelRequested == !state.isTerminal)
        #expect(try store.isCancelRequested(id: "run_1"))
    }

    // MARK: Dead runners

    @Test func `a run whose runner is dead ends, once`() throws {
        try store.insert(.sample("dead", state: .running, runner: (pid: 10, startTime: .max)))
        try store.insert(.sample("reused", owner: "bob", runner: (pid: 11, startTime: 1)))
        try store.insert(.sample("alive", state: .running, runner: (pid: 11, startTime: 2)))
        try store.insert(.sample("ended", state: .completed))
        let isAlive = { (pid: Int32, startTime: UInt64) in pid == 11 && startTime == 2 }
        let end = { (id: String) -> StoredRun.End in
            id == "dead" ? .failed(error: "{why}") : .completed(result: "{whole}")
        }
        #expect(try store.endAbandoned(now: 1234, isAlive: isAlive, end: end).sorted() == ["dead", "reused"])
        var expected = StoredRun.sample("dead", state: .failed, used: 1234, runner: nil)
        expected.error = "{why}"
        #expect(try found("dead") == expected)
        #expect(try found("alive")?.state == .running && found("ended")?.state == .completed)
        let reused = try store.read(id: "reused", owner: "bob", now: 0)
        #expect(reused?.state == .completed && reused?.result == "{whole}" && reused?.error == nil)
        #expect(try !store.finish(id: "dead", .completed(result: "{}"), now: 2000))
        #expect(try store.endAbandoned(now: 1234, isAlive: isAlive, end: end) == [])
    }

    /// Its stream can be ended before anybody takes it for over.
    @Test func `a run is asked after before it ends`() throws {
        for id in ["one", "two"] { try store.insert(.sample(id, state: .running)) }
        var told: [String: StoredRun.State] = [:]
        let ended = try store.endAbandoned(now: 1, isAlive: { _, _ in false }) { id in
            told[id] = (try? found(id))?.state
            return .failed(error: "{}")
        }
        #expect(told == ["one": .running, "two": .running] && ended.sorted() == ["one", "two"])
        #expect(try found("one")?.state == .failed)
    }

    @Test func `each abandoned run is named by one of several processes`() async throws {
        let ids = (0..<60).map { "run_\($0)" }
        try insert(ids)
        let (path, named) = (bench.path, bench.directory.path + "/named")
        await withTaskGroup { group in
            for _ in 0..<3 {
                group.addTask {
                    await #expect(processExitsWith: .success) { [path = path as String, named = named as String] in
                        guard endAbandoned(path: path, named: named) else { exit(3) }
                    }
                }
            }
        }
        try expectNamed(named, ids)
    }

    private func insert(_ ids: [String]) throws {
        for id in ids { try store.insert(.sample(id)) }
    }

    private func expectNamed(_ named: String, _ ids: [String]) throws {
        let found = try String(contentsOfFile: named, encoding: .utf8).split(separator: "\n").map(String.init)
        #expect(found.sorted() == ids.sorted())
    }

    // MARK: Making room

    @Test func `what nobody used expires, the oldest first, and what has a runner does not`() throws {
        for age in 0..<8 { try store.insert(.sample("run_\(age)", state: .completed, used: 1000 + age)) }
        try store.insert(.sample("running", state: .running, used: 1))
        _ = try store.read(id: "run_0", owner: "alice", now: 2000)
        #expect(try store.removeExpired(unusedSince: 1005, limit: 3) == ["run_1", "run_2", "run_3"])
        #expect(try store.removeExpired(unusedSince: 1005, limit: 3) == ["run_4"])
        #expect(try store.removeExpired(unusedSince: 1005, limit: 3) == [])
        #expect(try store.isKnown(ids: ["run_0", "run_1", "run_5", "running"]) == ["run_0", "run_5", "running"])
    }
}
