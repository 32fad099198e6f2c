import CLinux
import Foundation
import Testing

@testable import Admission

@Suite struct LiveTableTests {
    private static func hash(_ number: UInt64) -> LiveHash { LiveHash(high: number, low: ~number) }

    /// A gate for each responder of a bench.
    private static func gates(_ bench: Bench, _ count: Int) throws -> [AdmissionGate] {
        try (0..<count).map { _ in try bench.gate(1, 1) }
    }

    @Test func `a conversation is found by all responders, and only as a whole hash`() throws {
        let bench = try Bench()
        let gates = try Self.gates(bench, 2)
        #expect(gates[0].publishLive(Self.hash(1), limit: 10) == [])
        #expect(gates[0].findLive(Self.hash(1)) == LiveOwner(pid: getpid(), isSelf: true))
        #expect(gates[1].findLive(Self.hash(1)) == LiveOwner(pid: getpid(), isSelf: false))
        #expect(gates[1].findLive(LiveHash(high: 1, low: 1)) == nil)
        #expect(gates[1].findLive(LiveHash(high: 2, low: ~1)) == nil)
        #expect(gates[1].liveCount == 1)
    }

    @Test func `only its owner withdraws a conversation, and once`() throws {
        let bench = try Bench()
        let gates = try Self.gates(bench, 2)
        #expect(gates[0].publishLive(Self.hash(1), limit: 10) == [])
        #expect(!gates[1].withdrawLive(Self.hash(1)))
        #expect(gates[1].findLive(Self.hash(1)) != nil)
        #expect(gates[0].withdrawLive(Self.hash(1)))
        #expect(!gates[0].withdrawLive(Self.hash(1)))
        #expect(gates[1].findLive(Self.hash(1)) == nil)
        #expect(gates[1].liveCount == 0)
    }

    @Test func `two processes may have the same conversation; one's own comes before another's`() throws {
        let bench = try Bench()
        let gates = try Self.gates(bench, 3)
        for gate in [gates[1], gates[0], gates[0]] { #expect(gate.publishLive(Self.hash(1), limit: 10) == []) }
        #expect(gates[1].findLive(Self.hash(1))?.isSelf == true)
        #expect(gates[2].findLive(Self.hash(1))?.isSelf == false)
        #expect(gates[0].withdrawLive(Self.hash(1)) && gates[0].withdrawLive(Self.hash(1)))
        #expect(!gates[0].withdrawLive(Self.hash(1)))
        #expect(gates[2].findLive(Self.hash(1)) != nil)
        #expect(gates[2].liveCount == 1)
    }

    @Test func `beyond the limit the conversation unused for longest is marked, whoever has it`() throws {
        let bench = try Bench()
        let gates = try Self.gates(bench, 2)
        #expect(gates[0].publishLive(Self.hash(1), limit: 3) == [])
        #expect(gates[1].publishLive(Self.hash(2), limit: 3) == [])
        #expect(gates[0].publishLive(Self.hash(3), limit: 3) == [])
        // Used again: taken out and offered anew, it is the youngest.
        #expect(gates[0].withdrawLive(Self.hash(1)))
        #expect(gates[0].publishLive(Self.hash(1), limit: 3) == [])

        #expect(gates[0].publishLive(Self.hash(4), limit: 3) == [])
        #expect(gates[0].evictedLive() == [] && gates[1].evictedLive() == [Self.hash(2)])
        #expect(gates[1].findLive(Self.hash(2)) == nil)
        // The next in line is one's own: the caller is told at once, and its place in the list stays until it is withdrawn.
        #expect(gates[0].publishLive(Self.hash(5), limit: 3) == [Self.hash(3)])
        #expect(gates[0].evictedLive() == [Self.hash(3)])
        #expect(gates[0].liveCount == 3)
        #expect(gates[0].withdrawLive(Self.hash(3)) && gates[1].withdrawLive(Self.hash(2)))
        #expect(gates[0].evictedLive() == [] && gates[1].evictedLive() == [])
        #expect(gates[0].liveCount == 3)
    }

    @Test func `of two equal conversations the marked one is withdrawn first`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 1)
        #expect(gate.publishLive(Self.hash(1), limit: 2) == [])
        #expect(gate.publishLive(Self.hash(1), limit: 2) == [])
        #expect(gate.publishLive(Self.hash(2), limit: 2) == [Self.hash(1)])
        #expect(gate.withdrawLive(Self.hash(1)))
        #expect(gate.evictedLive() == [])
        #expect(gate.findLive(Self.hash(1)) != nil)
    }

    @Test func `a lower limit marks as many as are too many`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 1)
        for number in 1...5 { #expect(gate.publishLive(Self.hash(UInt64(number)), limit: 5) == []) }
        #expect(gate.publishLive(Self.hash(6), limit: 2) == (1...4).map(Self.hash))
        #expect(gate.liveCount == 2)
    }

    @Test(arguments: [0, -1, Int.min])
    func `without room for any nothing is kept`(_ limit: Int) throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 1)
        #expect(gate.publishLive(Self.hash(1), limit: limit) == [Self.hash(1)])
        #expect(gate.liveCount == 0 && !gate.withdrawLive(Self.hash(1)))
    }

    @Test func `no limit is above the table's, and a table full of marked ones refuses`() throws {
        let bench = try Bench()
        let gate = try bench.gate(1, 1)
        let most = AdmissionGate.liveCapacity
        for number in 0..<most { #expect(gate.publishLive(Self.hash(UInt64(number)), limit: .max) == []) }
        for number in 0..<most {
            #expect(gate.publishLive(Self.hash(UInt64(most + number)), limit: .max) == [Self.hash(UInt64(number))])
        }
        #expect(gate.liveCount == most && gate.evictedLive().count == most)
        #expect(gate.publishLive(Self.hash(1 << 40), limit: .max) == [Self.hash(1 << 40)])
        #expect(gate.withdrawLive(Self.hash(7)))
        #expect(gate.publishLive(Self.hash(1 << 40), limit: .max) == [Self.hash(UInt64(most))])
    }

    @Test func `what a dead responder kept is not found, and its rows come free`() throws {
        let bench = try Bench()
        let observer = try bench.gate(1, 1)
        do {
            let gate = try bench.gate(1, 1)
            for number in 1...3 { #expect(gate.publishLive(Self.hash(UInt64(number)), limit: 2).count < 2) }
            gate.setSpares(4, kibibytes: 5)
            gate.setLive(kibibytes: 6)
            #expect(observer.findLive(Self.hash(3)) != nil)
        }
        // Nobody has reaped yet. A child that another test starts at this moment has the lock until its exec.
        #expect(eventually { observer.findLive(Self.hash(3)) == nil })
        observer.reap(isForced: true)
        #expect(observer.liveCount == 0)
        let next = try bench.gate(1, 1)
        #expect(next.evictedLive() == [] && !next.withdrawLive(Self.hash(3)))
        #expect(next.scoreboard().responders.map(\.spares) == [0, 0])
        #expect(next.scoreboard().responders.map { $0.spareKibibytes + $0.liveKibibytes } == [0, 0])
    }

    @Test func `a responder without a free thread is not named to others, and is to itself`() throws {
        let bench = try Bench()
        let gates = try (0..<3).map { _ in
            try AdmissionGate(
                path: bench.path, limits: .init(concurrency: 1, queueLimit: 9), threads: 2, onOrphans: { _ in })
        }
        #expect(gates[0].publishLive(Self.hash(1), limit: 5) == [])
        let running = Holder(gates[0])
        #expect(running.becomes("running"))
        #expect(gates[1].findLive(Self.hash(1)) != nil)
        let waiting = Holder(gates[0])
        while gates[0].counts.waiting < 1 { usleep(1000) }
        #expect(gates[1].findLive(Self.hash(1)) == nil)
        #expect(gates[0].findLive(Self.hash(1))?.isSelf == true)
        // Another one that keeps it and has a thread is.
        #expect(gates[2].publishLive(Self.hash(1), limit: 5) == [])
        #expect(gates[1].findLive(Self.hash(1)) != nil)
        running.release()
        #expect(waiting.becomes("running"))
        #expect(gates[1].findLive(Self.hash(1)) != nil)
        waiting.release()
    }

    @Test func `a draining responder's conversations are gone, and none comes`() throws {
        let bench = try Bench()
        let gates = try Self.gates(bench, 2)
        for (index, gate) in gates.enumerated() {
            #expect(gate.publishLive(Self.hash(UInt64(index)), limit: 5) == [])
        }
        gates[0].drain()
        #expect(gates[1].findLive(Self.hash(0)) == nil && gates[1].findLive(Self.hash(1)) != nil)
        #expect(gates[0].publishLive(Self.hash(2), limit: 5) == [Self.hash(2)])
        #expect(gates[1].liveCount == 1)
    }

    @Test func `the scoreboard shows each responder's spares and live conversations`() throws {
        let bench = try Bench()
        let gates = try Self.gates(bench, 2)
        gates[0].setSpares(3, kibibytes: 30)
        gates[1].setSpares(1, kibibytes: 10)
        gates[1].setSpares(2, kibibytes: 20)
        gates[1].setLive(kibibytes: 7)
        for number in 0..<4 {
            #expect(gates[number % 4 == 0 ? 0 : 1].publishLive(Self.hash(UInt64(number)), limit: 9) == [])
        }
        let board = try #require(try AdmissionGate.scoreboard(path: bench.path))
        #expect(board.responders.map(\.spares) == [3, 2])
        #expect(board.responders.map(\.live) == [1, 3])
        #expect(board.responders.map(\.spareKibibytes) == [30, 20])
        #expect(board.responders.map(\.liveKibibytes) == [0, 7])
    }

    @Test func `a digest's first 16 bytes are the hash`() {
        #expect(LiveHash(digest: 0..<32) == LiveHash(high: 0x0001_0203_0405_0607, low: 0x0809_0A0B_0C0D_0E0F))
        #expect(LiveHash(digest: [1] as [UInt8]) == LiveHash(high: 1 << 56, low: 0))
        #expect(LiveHash(digest: [] as [UInt8]) == LiveHash(high: 0, low: 0))
    }
}
