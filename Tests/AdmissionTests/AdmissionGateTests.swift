import CLinux
import Foundation
import Synchronization
import Testing

@testable import Admission

/// A segment in a directory of its own; each gate on it stands for a responder process.
final class Bench {
    let directory: URL
    var path: String { directory.path + "/admission" }

    init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("gate-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: directory) }

    func gate(_ concurrency: Int, _ queueLimit: Int) throws -> AdmissionGate {
        try AdmissionGate(path: path, limits: .init(concurrency: concurrency, queueLimit: queueLimit), threads: 1) {
            _ in
        }
    }
}

/// Blocking calls belong on threads of their own.
private func onThread(_ body: @escaping @Sendable () -> Void) { Thread.detachNewThread(body) }

/// Waits for a condition, at most half a minute.
func eventually(_ condition: () -> Bool) -> Bool {
    for _ in 0..<15000 {
        if condition() { return true }
        usleep(2000)
    }
    return condition()
}

private func later(_ seconds: Double) -> ContinuousClock.Instant { .now + .seconds(seconds) }

/// Takes a place and holds it until told to let go.
final class Holder: Sendable {
    private let letGo = Atomic<Bool>(false)
    let outcome = Mutex<String>("waiting")

    init(
        _ gate: AdmissionGate, client: String = "one", limits: AdmissionClient? = nil, session: String? = nil,
        seconds: Double = 60,
        isAbandoned: @escaping @Sendable () -> Bool = { false },
        onGrant: @escaping @Sendable () -> Void = {}
    ) {
        onThread { [self] in
            do throws(AdmissionError) {
                let permit = try gate.admit(
                    .init(
                        client: limits ?? .init(name: client),
                        session: session.map { AdmissionRequest.sessionNumber($0) } ?? 0),
                    until: later(seconds), isAbandoned: isAbandoned)
                onGrant()
                outcome.withLock { $0 = "running" }
                while !letGo.load(ordering: .relaxed) { usleep(500) }
                _ = consume permit
                outcome.withLock { $0 = "released" }
            } catch {
                outcome.withLock { $0 = "\(error)" }
            }
        }
    }

    func release() { letGo.store(true, ordering: .relaxed) }
    func becomes(_ text: String) -> Bool { eventually { outcome.withLock { $0.hasPrefix(text) } } }
}

@Suite struct AdmissionGateTests {
    @Test func `places are counted over all processes, and the queue behind them`() throws {
        let bench = try Bench()
        let gates = [try bench.gate(2, 1), try bench.gate(2, 1)]
        let first = Holder(gates[0])
        let second = Holder(gates[1])
        #expect(first.becomes("running") && second.becomes("running"))
        let third = Holder(gates[0])
        #expect(eventually { gates[1].counts == .init(running: 2, waiting: 1) })
        let fourth = Holder(gates[1])
        #expect(fourth.becomes("queueFull"))
        first.release()
        #expect(third.becomes("running"))
        second.release()
        third.release()
        #expect(eventually { gates[0].counts == .init(running: 0, waiting: 0) })
    }

    @Test func `waiting requests are admitted in order of arrival, whichever process has them`() throws {
        let bench = try Bench()
        let gates = try (0..<4).map { _ in try bench.gate(1, 100) }
        let order = Mutex<[Int]>([])
        let blocker = Holder(gates[0])
        #expect(blocker.becomes("running"))
        var holders: [Holder] = []
        for number in 0..<24 {
            let holder = Holder(gates[number * 7 % 4], onGrant: { order.withLock { $0.append(number) } })
            holders.append(holder)
            #expect(eventually { gates[0].counts.waiting == number + 1 })
        }
        holders.forEach { $0.release() }
        blocker.release()
        #expect(eventually { order.withLock { $0.count } == 24 })
        #expect(order.withLock { $0 } == Array(0..<24))
    }

    @Test func `places go round the keys that wait, oldest first within a key`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 100)
        let order = Mutex<[String]>([])
        let blocker = Holder(gate, client: "z")
        #expect(blocker.becomes("running"))
        var holders: [Holder] = []
        for (index, name) in ["a1", "a2", "a3", "b1", "c1", "b2"].enumerated() {
            holders.append(
                Holder(gate, client: String(name.prefix(1)), onGrant: { order.withLock { $0.append(name) } }))
            #expect(eventually { gate.counts.waiting == index + 1 })
        }
        holders.forEach { $0.release() }
        blocker.release()
        #expect(eventually { order.withLock { $0.count } == 6 })
        #expect(order.withLock { $0 } == ["a1", "b1", "c1", "a2", "b2", "a3"])
    }

    @Test func `waiting ends at its deadline and leaves no trace`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 5)
        let blocker = Holder(gate)
        #expect(blocker.becomes("running"))
        #expect(Holder(gate, seconds: 0.05).becomes("timedOut"))
        #expect(eventually { gate.counts == .init(running: 1, waiting: 0) })
        blocker.release()
    }

    @Test func `a caller that leaves frees its place in the queue`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 1)
        let blocker = Holder(gate)
        #expect(blocker.becomes("running"))
        let leaver = Holder(gate, isAbandoned: { Gone.shared.load(ordering: .relaxed) })
        #expect(eventually { gate.counts.waiting == 1 })
        Gone.shared.store(true, ordering: .relaxed)
        #expect(leaver.becomes("abandoned"))
        #expect(gate.counts.waiting == 0)
        blocker.release()
    }

    @Test func `draining ends waiting and leaves what runs`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 5)
        let runner = Holder(gate)
        #expect(runner.becomes("running"))
        let waiter = Holder(gate)
        #expect(eventually { gate.counts.waiting == 1 })
        gate.drain()
        #expect(waiter.becomes("draining"))
        #expect(gate.counts == .init(running: 1, waiting: 0))
        runner.release()
    }

    @Test func `the newest limits win and nothing that runs is cut`() throws {
        let bench = try Bench()
        let old = try bench.gate(2, 5)
        let runners = [Holder(old), Holder(old)]
        #expect(runners.allSatisfy { $0.becomes("running") })
        let waiter = Holder(old)
        #expect(eventually { old.counts.waiting == 1 })
        let wider = try bench.gate(3, 5)
        #expect(waiter.becomes("running"))
        let narrower = try bench.gate(1, 5)
        #expect(narrower.counts == .init(running: 3, waiting: 0))
        let last = Holder(wider)
        runners.forEach { $0.release() }
        #expect(eventually { narrower.counts == .init(running: 1, waiting: 1) })
        waiter.release()
        #expect(last.becomes("running"))
        last.release()
    }

    @Test func `a segment of another layout is replaced when nobody uses it`() throws {
        let bench = try Bench()
        try Data(repeating: 7, count: 100).write(to: URL(fileURLWithPath: bench.path))
        #expect(try bench.gate(1, 1).counts == .init(running: 0, waiting: 0))
    }

    @Test func `a segment of another layout is refused while a live owner holds it`() throws {
        let bench = try Bench()
        try Data(repeating: 7, count: 100).write(to: URL(fileURLWithPath: bench.path))
        let descriptor = unsafe open(bench.path, O_RDWR)
        defer { close(descriptor) }
        #expect(clinux_ofd_lock(descriptor, off_t(ADMISSION_LOCK_BASE) + 3, 0) == 0)
        #expect(throws: AdmissionSegmentError.otherLayoutInUse(path: bench.path)) { try bench.gate(1, 1) }
    }

    @Test func `a refusal says when to come back, from how long runs take and how many wait`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 0)
        let blocker = Holder(gate)
        #expect(blocker.becomes("running"))
        let refused = Holder(gate)
        #expect(refused.becomes("queueFull"))
        // No run has ended yet: ten seconds are assumed.
        #expect(refused.outcome.withLock { $0 }.contains("10"))
        blocker.release()
    }

    @Test func `a key's own limits hold back its requests and nobody else's`() throws {
        let bench = try Bench()
        let gate = try bench.gate(3, 10)
        let limited = AdmissionClient(name: "limited", concurrency: 1, queueLimit: 1)
        let first = Holder(gate, limits: limited)
        #expect(first.becomes("running"))
        let second = Holder(gate, limits: limited)
        #expect(eventually { gate.counts == .init(running: 1, waiting: 1) })
        #expect(Holder(gate, limits: limited).becomes("queueFull"))
        let other = Holder(gate, client: "other")
        #expect(other.becomes("running"))
        #expect(gate.counts == .init(running: 2, waiting: 1))
        first.release()
        #expect(second.becomes("running"))
        second.release()
        other.release()
    }

    @Test func `requests of one session run one after the other, in order of arrival, and hold nobody else back`()
        throws
    {
        let bench = try Bench()
        let gates = [try bench.gate(3, 10), try bench.gate(3, 10)]
        let order = Mutex<[Int]>([])
        let first = Holder(gates[0], session: "s")
        #expect(first.becomes("running"))
        var holders: [Holder] = []
        for number in 0..<4 {
            holders.append(
                Holder(gates[number % 2], session: "s", onGrant: { order.withLock { $0.append(number) } }))
            #expect(eventually { gates[0].counts == .init(running: 1, waiting: number + 1) })
        }
        let other = Holder(gates[1], session: "t")
        let plain = Holder(gates[0])
        #expect(other.becomes("running") && plain.becomes("running"))
        #expect(gates[0].busySessionCount == 2)
        first.release()
        for holder in holders {
            #expect(holder.becomes("running"))
            #expect(gates[1].counts.running == 3)
            holder.release()
        }
        #expect(eventually { order.withLock { $0 } == [0, 1, 2, 3] })
        other.release()
        plain.release()
        #expect(eventually { gates[0].counts == .init(running: 0, waiting: 0) })
    }

    @Test func `a session's place comes free when its request leaves the queue`() throws {
        let bench = try Bench()
        let gate = try bench.gate(2, 10)
        let first = Holder(gate, session: "s")
        #expect(first.becomes("running"))
        let leaving = Holder(gate, session: "s", seconds: 0.05)
        #expect(leaving.becomes("timedOut"))
        #expect(gate.isBusy(session: AdmissionRequest.sessionNumber("s")))
        first.release()
        #expect(eventually { !gate.isBusy(session: AdmissionRequest.sessionNumber("s")) })
        let second = Holder(gate, session: "s")
        #expect(second.becomes("running"))
        second.release()
    }

    @Test func `counters outlive the responder that counted`() throws {
        let bench = try Bench()
        let observer = try bench.gate(1, 1)
        do {
            let gate = try bench.gate(1, 1)
            gate.count(
                RequestRecord(
                    route: 3, status: 0, timings: [(.total, .milliseconds(30)), (.queueWait, .seconds(7200))],
                    inputTokens: 5, outputTokens: 7, cacheReadTokens: 1, costUSD: 0.25))
            gate.countRetries(2)
        }
        let totals = observer.scoreboard().totals
        #expect(totals.requests[3][0] == 1)
        #expect(totals.inputTokens == 5 && totals.outputTokens == 7 && totals.cacheReadTokens == 1)
        #expect(totals.costMicrodollars == 250_000 && totals.retries == 2)
        #expect(totals.histograms[RequestTiming.total.rawValue].buckets[4] == 1)
        #expect(totals.histograms[RequestTiming.queueWait.rawValue].buckets.last == 1)
    }

    @Test func `the scoreboard shows who runs and who waits`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 5)
        let runner = Holder(gate, client: "älice-with-a-name-that-is-longer-than-its-field")
        #expect(runner.becomes("running"))
        let waiter = Holder(gate, client: "bob")
        #expect(eventually { gate.counts.waiting == 1 })
        let board = try #require(try AdmissionGate.scoreboard(path: bench.path))
        #expect(board.requests.count == 2 && board.counts == .init(running: 1, waiting: 1))
        #expect(board.requests[0].client.hasPrefix("älice-with-a-name") && board.requests[1].client == "bob")
        #expect(board.requests[1].stage == .waiting)
        #expect(board.responders.map(\.pid) == [getpid()])
        runner.release()
        #expect(waiter.becomes("running"))
        waiter.release()
    }
}

private enum Gone {
    static let shared = Atomic<Bool>(false)
}
