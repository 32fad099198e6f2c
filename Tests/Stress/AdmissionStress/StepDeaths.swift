// A process that dies at every instruction of a critical section.
//
// The child opens the gate, asks to be traced and stops. The parent lets it run N instructions of one admit and release (or of keeping a conversation),
// and kills it: for N = offset, offset + stride, … (another offset each run) until the child has come through alive. After each death the table must show
// nothing of the child, and a place must be had at once.

import Admission
import CLinux
import Glibc

enum StepDeaths {
    /// What the child does between its stop and its end.
    enum Scenario: String, CaseIterable {
        /// The gate is free: it runs and releases.
        case runs
        /// The gate is full: it waits, gives up and leaves the queue.
        case waits
        /// It offers a conversation and one more than fits, looks for one, ends the marked one and withdraws the other.
        case keeps
    }

    /// The child.
    static func child(_ path: String, _ scenario: Scenario) -> Never {
        guard
            let gate = try? AdmissionGate(
                path: path, limits: .init(concurrency: 1, queueLimit: 4), threads: 1, onOrphans: { _ in })
        else { fail("no gate in a child") }
        // Once untraced: the dynamic linker's work, done at each function's first call, is not what is tested.
        pass(gate, scenario)
        guard clinux_trace_me() == 0 else { _exit(3) }
        raise(SIGSTOP)
        pass(gate, scenario)
        _exit(0)
    }

    private static func pass(_ gate: AdmissionGate, _ scenario: Scenario) {
        if scenario == .keeps {
            let hashes = [1, 2].map { LiveHash(high: $0, low: 0) }
            for hash in hashes { _ = gate.publishLive(hash, limit: 1) }
            _ = gate.findLive(hashes[1])
            for hash in gate.evictedLive() + [hashes[1]] { gate.withdrawLive(hash) }
            return
        }
        do throws(AdmissionError) {
            let permit = try gate.admit(.init(client: .init(name: "child")), until: .now + .seconds(5)) { true }
            permit.record(processGroup: 1, startTime: 1, runSeconds: 1, runCount: 1)
            _ = consume permit
        } catch {}
    }

    /// Kills children at every `stride`-th instruction.
    static func run(directory: String, stride: Int, offset: Int) throws {
        let path = directory + "/steps"
        defer { unsafe unlink(path) }
        let gate = try AdmissionGate(
            path: path, limits: .init(concurrency: 1, queueLimit: 4), threads: 1, onOrphans: { _ in })
        for scenario in Scenario.allCases {
            let blocker: AdmissionPermit? = scenario == .waits ? try admit(gate, "before the deaths") : nil
            let expected = gate.counts
            var steps = 1 + offset % stride
            var deaths = 0
            while try killed(path, scenario, after: steps) {
                deaths += 1
                gate.reap(isForced: true)
                if gate.counts != expected { fail("steps: after \(steps) instructions the table shows \(gate.counts)") }
                if gate.liveCount != 0 { fail("steps: after \(steps) instructions a dead one's conversation is live") }
                if scenario == .runs { _ = try admit(gate, "after a death at instruction \(steps)") }
                if scenario == .keeps { keep(gate, "after a death at instruction \(steps)") }
                steps += stride
            }
            print("steps: \(scenario.rawValue): \(deaths) deaths in about \(steps) instructions; nothing left of any")
            if deaths < 10 { fail("steps: only \(deaths) deaths, so nothing was tested") }
            _ = consume blocker
        }
    }

    private static func keep(_ gate: AdmissionGate, _ when: String) {
        let hash = LiveHash(high: 3, low: 3)
        guard gate.publishLive(hash, limit: 1) == [], gate.findLive(hash)?.isSelf == true, gate.withdrawLive(hash)
        else {
            fail("steps: no conversation can be kept \(when)")
        }
    }

    private static func admit(_ gate: AdmissionGate, _ when: String) throws -> AdmissionPermit {
        do throws(AdmissionError) {
            return try gate.admit(.init(client: .init(name: "parent")), until: .now + .seconds(3)) { false }
        } catch {
            fail("steps: no place \(when): \(error)")
        }
    }

    /// - Returns: False when the child came through alive.
    private static func killed(_ path: String, _ scenario: Scenario, after steps: Int) throws -> Bool {
        let process = spawn(["step", path, scenario.rawValue])
        var status: CInt = 0
        unsafe waitpid(process, &status, WUNTRACED)
        guard clinux_has_stopped(status) != 0 else { fail("steps: this machine lets no process be traced") }
        for _ in 0..<steps {
            guard clinux_trace_step(process) == 0 else { break }
            unsafe waitpid(process, &status, 0)
            if clinux_has_stopped(status) == 0 { return false }
        }
        end(process, "steps")
        return true
    }
}
