// Admission under random death. Run by `make stress` (minutes) and by Scripts/test (seconds):
//
//   AdmissionStress SECONDS [SEED]
//
// Four worker processes of eight threads each admit, hold, abandon and time out at random on one segment, offer, find and
// withdraw live conversations, and are killed (SIGKILL) at random instants, in the middle of critical sections too, since they
// do little else. The parent looks at the table all the while, and at its end.
//
//   steps:       a process dies at every n-th instruction of admit and release (StepDeaths.swift)
//   calm half:   nobody is killed; a counter shared by all workers proves that never more than the limit run
//   live:        never more conversations than the limit, and each that a worker offered is withdrawn once and no more
//   order:       in both halves each client's requests get their places in the order in which they came
//   storm half:  a worker dies every few milliseconds; the table must never show more than the limits, and never hang

import Admission
import CLinux
import Glibc
import ProcessControl
import Synchronization

let concurrency = 3
let queueLimit = 12
let workers = 4
let threadsPerWorker = 8
let liveLimit = 5

func fail(_ message: String) -> Never {
    print("FAILED: \(message)")
    exit(1)
}

/// A page shared by all workers: how many hold a place now, the most ever, and how many were admitted.
@safe struct Ledger: @unchecked Sendable {
    // The page stays mapped for the life of the process, and its words are atomic.
    let words: UnsafeMutablePointer<Atomic<Int>>
    /// How many turns are kept: three words each, behind the first page.
    static let turnLimit = 400_000
    private static let bytes = 4096 + turnLimit * 24

    init(path: String) {
        let descriptor = unsafe open(path, O_RDWR | O_CREAT, 0o600)
        guard descriptor >= 0, ftruncate(descriptor, off_t(Self.bytes)) == 0,
            let base = unsafe mmap(nil, Self.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            unsafe base != MAP_FAILED
        else { fail("no ledger at \(path)") }
        unsafe words = unsafe base.assumingMemoryBound(to: Atomic<Int>.self)
    }

    var running: Int { unsafe words[0].load(ordering: .sequentiallyConsistent) }
    var most: Int { unsafe words[1].load(ordering: .sequentiallyConsistent) }
    var admitted: Int { unsafe words[2].load(ordering: .sequentiallyConsistent) }

    func enter() {
        let now = unsafe words[0].add(1, ordering: .sequentiallyConsistent).newValue
        _ = unsafe words[1].max(now, ordering: .sequentiallyConsistent)
        _ = unsafe words[2].add(1, ordering: .sequentiallyConsistent)
    }

    /// Keeps whose turn it was; beyond the limit nothing.
    func note(client: Int, turn: (ticket: UInt64, granted: UInt64)) {
        let index = unsafe words[3].add(1, ordering: .relaxed).oldValue
        guard index < Self.turnLimit else { return }
        let row = 512 + index * 3
        unsafe words[row].store(client, ordering: .relaxed)
        unsafe words[row + 1].store(Int(clamping: turn.ticket), ordering: .relaxed)
        unsafe words[row + 2].store(Int(clamping: turn.granted), ordering: .relaxed)
    }

    /// Whether each client's requests got their places in the order in which they came.
    ///
    /// - Returns: How many turns were compared.
    func checkOrder(_ phase: String) -> Int {
        let count = min(unsafe words[3].load(ordering: .relaxed), Self.turnLimit)
        var turns: [(client: Int, ticket: Int, granted: Int)] = []
        for index in 0..<count {
            let row = 512 + index * 3
            let turn = unsafe (
                words[row].load(ordering: .relaxed), words[row + 1].load(ordering: .relaxed),
                words[row + 2].load(ordering: .relaxed)
            )
            // A worker that died between its words left a row that is not whole.
            if turn.1 != 0, turn.2 != 0 { turns.append(turn) }
        }
        turns.sort { ($0.client, $0.ticket) < ($1.client, $1.ticket) }
        for (first, second) in zip(turns, turns.dropFirst()) where first.client == second.client {
            if second.granted < first.granted {
                fail("\(phase): request \(second.ticket) got its place before \(first.ticket) of the same client")
            }
        }
        return turns.count
    }

    func leave() { _ = unsafe words[0].subtract(1, ordering: .sequentiallyConsistent) }
}

func work(_ directory: String, seed: UInt64) -> Never {
    let ledger = Ledger(path: directory + "/ledger")
    guard
        let gate = try? AdmissionGate(
            path: directory + "/admission", limits: .init(concurrency: concurrency, queueLimit: queueLimit),
            threads: threadsPerWorker, onOrphans: { _ in })
    else { fail("no gate in a worker") }
    for number in 0..<threadsPerWorker {
        startThread { admitForEver(gate, ledger, seed: seed &* 31 &+ UInt64(number)) }
    }
    let kept = KeptConversations(gate)
    for number in 0..<2 { startThread { kept.changeForEver(seed: seed &* 37 &+ UInt64(number)) } }
    while true { pause() }
}

func admitForEver(_ gate: AdmissionGate, _ ledger: Ledger, seed: UInt64) {
    var random = Random(state: seed | 1)
    while true {
        let patience = random.below(10) == 0 ? random.below(3) : 2000
        let leaves = random.below(8) == 0
        do throws(AdmissionError) {
            let client = random.below(3)
            let permit = try gate.admit(
                .init(client: .init(name: "key-\(client)")), until: .now + .milliseconds(patience)
            ) { leaves }
            ledger.enter()
            ledger.note(client: client + 1, turn: permit.turn)
            permit.record(processGroup: 1, startTime: 1, runSeconds: 1, runCount: 1)
            if random.below(4) == 0 { usleep(UInt32(random.below(400))) }
            ledger.leave()
            _ = consume permit
        } catch {
            if random.below(4) == 0 { usleep(UInt32(random.below(200))) }
        }
    }
}

/// xorshift64*: repeatable from the seed.
struct Random {
    var state: UInt64
    mutating func below(_ bound: Int) -> Int {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return Int((state &* 2_685_821_657_736_338_717) >> 33) % bound
    }
}

final class ThreadBody: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

func startThread(_ body: @escaping @Sendable () -> Void) {
    let box = unsafe Unmanaged.passRetained(ThreadBody(body))
    var thread = pthread_t()
    _ = unsafe pthread_create(
        &thread, nil,
        { argument in
            guard let argument = unsafe argument else { return nil }
            unsafe Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue().body()
            return nil
        }, box.toOpaque())
}

/// Starts this program again, with other arguments.
func spawn(_ arguments: [String]) -> pid_t {
    var process = pid_t()
    var pointers = unsafe (["AdmissionStress"] + arguments).map { unsafe strdup($0) }
    unsafe pointers.append(nil)
    defer { unsafe pointers.forEach { unsafe free($0) } }
    guard unsafe posix_spawn(&process, "/proc/self/exe", nil, nil, pointers, Glibc.environ) == 0 else { fail("spawn") }
    return process
}

/// Kills a worker; one that had found a fault and ended by itself is a failure.
func end(_ process: pid_t, _ phase: String) {
    var status: CInt = 0
    kill(process, SIGKILL)
    unsafe waitpid(process, &status, 0)
    if clinux_has_exited(status) != 0 { fail("\(phase): a worker ended with \(clinux_exit_code(status))") }
}

@main enum AdmissionStress {
    static func main() throws {
        let arguments = CommandLine.arguments
        if arguments.count == 4, arguments[1] == "work" { work(arguments[2], seed: UInt64(arguments[3]) ?? 1) }

        if arguments.count == 4, arguments[1] == "step", let scenario = StepDeaths.Scenario(rawValue: arguments[3]) {
            StepDeaths.child(arguments[2], scenario)
        }

        let seconds = arguments.count > 1 ? Double(arguments[1]) ?? 4 : 4
        let seed = arguments.count > 2 ? UInt64(arguments[2]) ?? 1 : UInt64(getpid())
        var random = Random(state: seed | 1)
        let directory = "/dev/shm/admission-stress-\(getpid())"
        unsafe mkdir(directory, 0o700)
        print(
            "seed \(seed), \(workers) processes x \(threadsPerWorker) threads, concurrency \(concurrency), queue "
                + "\(queueLimit)"
        )

        // Single steps are slow: every 17th instruction in a long run, every 307th in a short one.
        let stride = seconds >= 60 ? 17 : 307
        try StepDeaths.run(directory: directory, stride: stride, offset: random.below(stride))

        func startWorker() -> pid_t { spawn(["work", directory, String(random.below(1 << 30))]) }

        let ledger = Ledger(path: directory + "/ledger")
        let gate = try AdmissionGate(
            path: directory + "/admission", limits: .init(concurrency: concurrency, queueLimit: queueLimit), threads: 0,
            onOrphans: { _ in })
        var processes = (0..<workers).map { _ in startWorker() }
        var mostLive = 0

        /// Looks at the table until `deadline`; calls `act` between two looks.
        func watch(until deadline: ContinuousClock.Instant, _ phase: String, _ act: () -> Void) {
            var last = ledger.admitted
            var lastChange = ContinuousClock.now
            while ContinuousClock.now < deadline {
                let counts = gate.counts
                if counts.running > concurrency { fail("\(phase): \(counts.running) run, the limit is \(concurrency)") }
                let live = gate.liveCount
                if live > liveLimit { fail("\(phase): \(live) conversations are live, the limit is \(liveLimit)") }
                mostLive = max(mostLive, live)
                if counts.waiting > queueLimit { fail("\(phase): \(counts.waiting) wait, the limit is \(queueLimit)") }
                if ledger.admitted != last {
                    last = ledger.admitted
                    lastChange = .now
                }
                if ContinuousClock.now - lastChange > .seconds(20) {
                    fail("\(phase): nothing was admitted for twenty seconds")
                }
                act()
                usleep(300)
            }
            // A phase may be shorter than that.
            last = ledger.admitted
            lastChange = .now
            while ledger.admitted == last {
                if ContinuousClock.now - lastChange > .seconds(20) {
                    fail("\(phase): nothing was admitted for twenty seconds behind it")
                }
                usleep(300)
            }
        }

        watch(until: .now + .seconds(seconds / 2), "calm") {}
        let calm = ledger.admitted
        if ledger.most > concurrency { fail("calm: \(ledger.most) ran at once, the limit is \(concurrency)") }
        if ledger.most < concurrency { fail("calm: the limit was never reached, so nothing was tested") }
        if mostLive < liveLimit { fail("calm: \(mostLive) conversations were live at most, so nothing was tested") }

        var deaths = 0
        watch(until: .now + .seconds(seconds / 2), "storm") {
            guard random.below(12) == 0 else { return }
            let index = random.below(workers)
            end(processes[index], "storm")
            processes[index] = startWorker()
            deaths += 1
        }
        for process in processes { end(process, "the end") }
        let turns = ledger.checkOrder("order")
        if turns < 1000 { fail("only \(turns) turns were seen, so no order was tested") }
        usleep(150_000)
        gate.reap(isForced: true)
        let counts = gate.counts
        if counts.running != 0 || counts.waiting != 0 {
            fail("at the end \(counts.running) run and \(counts.waiting) wait")
        }
        if gate.liveCount != 0 { fail("at the end \(gate.liveCount) conversations are live, and nobody to have them") }
        for name in ["admission", "ledger"] { unsafe unlink("\(directory)/\(name)") }
        unsafe rmdir(directory)
        print(
            "passed: \(calm) admissions without deaths, \(ledger.admitted - calm) with \(deaths) deaths; no place "
                + "lost, no hang, \(turns) turns in order"
        )
    }
}
