import Foundation
import GRDB
import Synchronization
import Testing

@testable import Sessions

@Suite struct ResponseStoreTests {
    let bench: StoreBench
    let store: ResponseStore

    init() throws {
        bench = try StoreBench()
        store = try bench.store()
    }

    // MARK: Storing

    @Test func `a response comes back as it was stored`() throws {
        var response = StoredResponse.sample(
            state: .inProgress, bytes: 3_000_000, runner: (pid: 12, startTime: .max - 1))
        response.cancelRequested = true
        try store.insert(response)
        #expect(try store.read(id: "resp_1", owner: "alice", now: 1000) == response)
    }

    @Test func `a response without a runner or predecessor comes back so`() throws {
        var response = StoredResponse.sample()
        response.previousID = nil
        try store.insert(response)
        #expect(try store.read(id: "resp_1", owner: "alice", now: 1000) == response)
    }

    @Test func `an id is stored once`() throws {
        try store.insert(.sample())
        let failure = failure { () throws(SessionStoreError) in try store.insert(.sample(owner: "bob")) }
        #expect(failure != nil)
        #expect(try store.count(owner: "bob") == 0)
        #expect(failure?.description.contains("alice") == false)
    }

    @Test func `a response that has ended is stored without its runner`() throws {
        try store.insert(.sample(state: .completed, runner: (pid: 12, startTime: 5)))
        let found = try store.read(id: "resp_1", owner: "alice", now: 1000)
        #expect(found?.runnerPID == nil && found?.runnerStartTime == nil)
    }

    @Test func `another key's response does not exist`() throws {
        try store.insert(.sample(state: .inProgress))
        #expect(try store.read(id: "resp_1", owner: "bob", now: 2000) == nil)
        #expect(try store.requestCancel(id: "resp_1", owner: "bob") == nil)
        #expect(try !store.delete(id: "resp_1", owner: "bob"))
        #expect(try store.count(owner: "bob") == 0)
        #expect(try store.removeOldest(owner: "bob", keeping: 0) == 0)
        let own = try store.read(id: "resp_1", owner: "alice", now: 1000)
        #expect(own?.lastUsed == 1000 && own?.cancelRequested == false)
    }

    @Test func `a deleted response is gone`() throws {
        try store.insert(.sample())
        #expect(try store.delete(id: "resp_1", owner: "alice"))
        #expect(try !store.delete(id: "resp_1", owner: "alice"))
        #expect(try store.read(id: "resp_1", owner: "alice", now: 1000) == nil)
        #expect(try !store.update(id: "resp_1", state: .completed, response: "{}", conversation: nil, now: 1000))
    }

    // MARK: Use

    @Test func `reading counts as a use, and time never goes back`() throws {
        try store.insert(.sample(used: 1000))
        #expect(try store.read(id: "resp_1", owner: "alice", now: 1500)?.lastUsed == 1500)
        #expect(try store.read(id: "resp_1", owner: "alice", now: 1200)?.lastUsed == 1500)
    }

    @Test func `a response is read while its use can't be marked`() throws {
        let store = try bench.store(patience: .milliseconds(50))
        try store.insert(.sample(used: 1000))
        let stranger = try bench.stranger()
        try stranger.inDatabase { db in
            try db.execute(sql: "BEGIN IMMEDIATE")
            #expect(try store.read(id: "resp_1", owner: "alice", now: 1500)?.lastUsed == 1000)
            try db.execute(sql: "ROLLBACK")
        }
        #expect(try store.read(id: "resp_1", owner: "alice", now: 1500)?.lastUsed == 1500)
    }

    // MARK: States

    @Test(arguments: StoredResponse.State.allCases)
    func `a response that runs can go on or end in every way`(state: StoredResponse.State) throws {
        try store.insert(.sample(state: .queued, runner: (pid: 12, startTime: 5)))
        #expect(try store.update(id: "resp_1", state: state, response: "{2}", conversation: "[2]", now: 1200))
        let found = try #require(try store.read(id: "resp_1", owner: "alice", now: 1100))
        #expect(found.state == state && found.response == "{2}" && found.conversation == "[2]")
        #expect(found.lastUsed == 1200)
        #expect((found.runnerPID == nil) == state.isTerminal && (found.runnerStartTime == nil) == state.isTerminal)
    }

    @Test func `the conversation stays when an update has none`() throws {
        try store.insert(.sample(state: .queued))
        try store.update(id: "resp_1", state: .inProgress, response: "{2}", conversation: nil, now: 1000)
        let found = try store.read(id: "resp_1", owner: "alice", now: 1000)
        #expect(found?.response == "{2}" && found?.conversation == StoredResponse.sample().conversation)
    }

    @Test(
        arguments: StoredResponse.State.allCases.filter(\.isTerminal), StoredResponse.State.allCases)
    func `the first end of a response stays`(first: StoredResponse.State, second: StoredResponse.State) throws {
        try store.insert(.sample(state: .inProgress))
        try store.update(id: "resp_1", state: first, response: "{1}", conversation: "[1]", now: 1000)
        #expect(try store.update(id: "resp_1", state: second, response: "{2}", conversation: "[2]", now: 1000))
        let found = try store.read(id: "resp_1", owner: "alice", now: 1000)
        #expect(found?.state == first && found?.response == "{1}" && found?.conversation == "[1]")
    }

    // MARK: Cancellation

    @Test(arguments: [StoredResponse.State.queued, .inProgress])
    func `a request to cancel reaches the run, and the state waits for it`(state: StoredResponse.State) throws {
        try store.insert(.sample(state: state, runner: (pid: 12, startTime: 5)))
        #expect(try !store.isCancelRequested(id: "resp_1"))
        let asked = try bench.store().requestCancel(id: "resp_1", owner: "alice")
        #expect(asked?.state == state && asked?.cancelRequested == true)
        #expect(try store.isCancelRequested(id: "resp_1"))
    }

    @Test(arguments: StoredResponse.State.allCases.filter(\.isTerminal))
    func `a response that has ended can't be cancelled`(state: StoredResponse.State) throws {
        try store.insert(.sample(state: state))
        let asked = try store.requestCancel(id: "resp_1", owner: "alice")
        #expect(asked?.state == state && asked?.cancelRequested == false)
    }

    @Test func `a run stops when its response is deleted or was ended by another`() throws {
        try store.insert(.sample("resp_1", state: .inProgress))
        try store.insert(.sample("resp_2", state: .inProgress))
        _ = try store.delete(id: "resp_1", owner: "alice")
        try store.update(id: "resp_2", state: .cancelled, response: "{}", conversation: nil, now: 1000)
        #expect(try store.isCancelRequested(id: "resp_1"))
        #expect(try store.isCancelRequested(id: "resp_2"))
    }

    @Test func `the run and the one who cancels agree on the end`() throws {
        // Two processes end the same responses at the same time; both then read the same end.
        let ids = (0..<40).map { "resp_\($0)" }
        for id in ids { try store.insert(.sample(id, state: .inProgress)) }
        let stores = try (0..<2).map { _ in try bench.store(patience: .seconds(30)) }
        let ends = Mutex<[String: Set<StoredResponse.State?>]>([:])
        onThreads(2) { index in
            for id in ids {
                let state = index == 0 ? StoredResponse.State.completed : .cancelled
                let found = try? stores[index].update(
                    id: id, state: state, response: "{}", conversation: nil, now: 1000)
                let end = found == true ? try? stores[index].read(id: id, owner: "alice", now: 1000)?.state : nil
                _ = ends.withLock { $0[id, default: []].insert(end) }
            }
        }
        for id in ids { #expect(ends.withLock { $0[id]?.count } == 1 && ends.withLock { $0[id] } != [nil]) }
    }

    // MARK: Dead runners

    @Test func `a response whose runner is dead fails, once`() throws {
        try store.insert(.sample("dead", state: .inProgress, runner: (pid: 10, startTime: .max)))
        try store.insert(.sample("reused", owner: "bob", state: .queued, runner: (pid: 11, startTime: 1)))
        try store.insert(.sample("alive", state: .inProgress, runner: (pid: 11, startTime: 2)))
        try store.insert(.sample("ended", state: .completed))
        try store.insert(.sample("foreground", state: .inProgress))
        let failed = try store.failAbandoned(now: 1234) { pid, startTime in
            pid == 11 && startTime == 2
        } failedResponse: { response in
            "{\"failed\":\"\(response.id)\"}"
        }
        #expect(failed.sorted() == ["dead", "reused"])
        let dead = try store.read(id: "dead", owner: "alice", now: 1000)
        #expect(dead?.state == .failed && dead?.response == "{\"failed\":\"dead\"}" && dead?.runnerPID == nil)
        #expect(dead?.lastUsed == 1234)
        #expect(try store.read(id: "alive", owner: "alice", now: 1000)?.state == .inProgress)
        #expect(try store.read(id: "foreground", owner: "alice", now: 1000)?.state == .inProgress)
        #expect(try store.failAbandoned(now: 1234, isAlive: { _, _ in true }, failedResponse: { _ in "" }) == [])
    }

    @Test func `an end that comes while the runner is looked at stays`() throws {
        try store.insert(.sample(state: .inProgress, runner: (pid: 10, startTime: 1)))
        let failed = try store.failAbandoned(now: 1234, isAlive: { _, _ in false }) { _ in
            // As its runner would: it died right after.
            _ = try? store.update(id: "resp_1", state: .completed, response: "{whole}", conversation: nil, now: 1)
            return "{failed}"
        }
        #expect(failed == [])
        #expect(try store.read(id: "resp_1", owner: "alice", now: 1000)?.response == "{whole}")
    }

    @Test func `each abandoned response is failed by one of several processes`() throws {
        for index in 0..<20 {
            try store.insert(.sample("resp_\(index)", state: .queued, runner: (pid: 10, startTime: 1)))
        }
        let stores = try (0..<3).map { _ in try bench.store(patience: .seconds(30)) }
        let failed = Mutex<[String]>([])
        onThreads(3) { index in
            let ours = try? stores[index].failAbandoned(
                now: 1000, isAlive: { _, _ in false }, failedResponse: { _ in "{}" })
            failed.withLock { $0 += ours ?? ["error"] }
        }
        #expect(failed.withLock { $0.sorted() } == (0..<20).map { "resp_\($0)" }.sorted())
    }

    // MARK: Making room

    @Test func `what nobody used expires, the oldest first, and what runs does not`() throws {
        for age in 0..<10 { try store.insert(.sample("resp_\(age)", used: 1000 + age)) }
        try store.insert(.sample("running", state: .inProgress, used: 0, runner: (pid: 10, startTime: 1)))
        try store.insert(.sample("lost", state: .inProgress, used: 1))
        _ = try store.read(id: "resp_0", owner: "alice", now: 2000)
        #expect(try store.removeExpired(unusedSince: 1005, limit: 3).count == 3)
        #expect(try store.read(id: "lost", owner: "alice", now: 1000) == nil)
        #expect(try store.read(id: "resp_3", owner: "alice", now: 1000) != nil)
        #expect(try store.removeExpired(unusedSince: 1005, limit: 3).count == 2)
        #expect(try store.removeExpired(unusedSince: 1005, limit: 3).count == 0)
        #expect(try store.count(owner: "alice") == 7)
    }

    @Test func `expiry gives disk space back`() throws {
        for index in 0..<40 { try store.insert(.sample("resp_\(index)", bytes: 100_000)) }
        func pages() throws -> Int {
            try store.database.read { db in try Int.fetchOne(db, sql: "PRAGMA page_count") ?? 0 }
        }
        let before = try pages()
        while try !store.removeExpired(unusedSince: 2000, limit: 5).isEmpty {}
        #expect(try pages() < before / 10)
    }

    @Test(arguments: [(120, 100), (5, 0), (3, 3), (3, 10)])
    func `a key keeps its most recently used responses`(stored: Int, keeping: Int) throws {
        for index in 0..<stored { try store.insert(.sample("resp_\(index)", used: 1000 + index)) }
        try store.insert(.sample("other", owner: "bob", used: 1))
        #expect(try store.removeOldest(owner: "alice", keeping: keeping) == max(0, stored - keeping))
        #expect(try store.count(owner: "alice") == min(stored, keeping))
        #expect(try store.count(owner: "bob") == 1)
        if keeping > 0 {
            #expect(try store.read(id: "resp_\(stored - 1)", owner: "alice", now: 1) != nil)
        }
    }

    @Test func `a response that runs counts but makes no room`() throws {
        try store.insert(.sample("running", state: .inProgress, used: 1, runner: (pid: 10, startTime: 1)))
        for index in 0..<3 { try store.insert(.sample("resp_\(index)", used: 1000 + index)) }
        #expect(try store.removeOldest(owner: "alice", keeping: 2) == 2)
        #expect(try store.read(id: "running", owner: "alice", now: 1) != nil)
        #expect(try store.read(id: "resp_2", owner: "alice", now: 1) != nil)
        #expect(try store.removeOldest(owner: "alice", keeping: 0) == 1)
    }
}
