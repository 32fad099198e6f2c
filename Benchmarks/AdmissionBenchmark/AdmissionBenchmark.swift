// What a place costs: admit and release on the shared gate, against a System V semaphore with SEM_UNDO in the same run.
//
//   AdmissionBenchmark [SECONDS]      a table, then one line of JSON
//
// alone:      one thread, nobody else; nanoseconds for one admit and release
// contended:  4 processes x 8 threads, limit 4, no work inside; pairs a second over all
//
// The semaphore is the cheapest thing in the kernel that survives a killed holder; it knows no order, no queue limit and no
// owner. Figures are ratios of one run: the machine's own speed falls out.

import Admission
import CLinux
import Glibc
import Synchronization

let processes = 4
let threads = 8
let limit = 4

/// One way of bounding how many run.
protocol Bound: Sendable {
    func pair()
}

struct Gate: Bound {
    let gate: AdmissionGate
    let request = AdmissionRequest(client: .init(name: "benchmark"))

    init(_ path: String) throws {
        gate = try AdmissionGate(
            path: path, limits: .init(concurrency: limit, queueLimit: 1000), threads: threads, onOrphans: { _ in })
    }

    func pair() {
        do throws(AdmissionError) {
            let permit = try gate.admit(request, until: .now + .seconds(60)) { false }
            _ = consume permit
        } catch {
            fatalError("not admitted: \(error)")
        }
    }
}

struct Semaphore: Bound {
    let id: CInt

    func pair() {
        for operation in [-1, 1] as [Int16] {
            var step = sembuf(sem_num: 0, sem_op: operation, sem_flg: Int16(SEM_UNDO))
            while unsafe semop(id, &step, 1) != 0 {}
        }
    }
}

func nanosecondsAlone(_ bound: some Bound) -> Double {
    var best = Double.infinity
    // The least of several rounds: whatever else the machine does only adds.
    for _ in 0..<7 {
        let began = clinux_monotonic()
        for _ in 0..<20_000 { bound.pair() }
        best = min(best, Double(clinux_monotonic() - began) / 20_000)
    }
    return best
}

final class ThreadBody: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

/// A worker process: pairs on all its threads until the time is over; prints how many.
func work(_ bound: some Bound, seconds: Double) {
    let end = clinux_monotonic() + UInt64(seconds * 1e9)
    let total = Total()
    var started: [pthread_t] = []
    for _ in 0..<threads {
        let box = unsafe Unmanaged.passRetained(
            ThreadBody {
                var own = 0
                while clinux_monotonic() < end {
                    bound.pair()
                    own += 1
                }
                total.add(own)
            })
        var thread = pthread_t()
        _ = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                unsafe Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, box.toOpaque())
        started.append(thread)
    }
    for thread in started { pthread_join(thread, nil) }
    print(total.value)
}

final class Total: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .relaxed) }
    func add(_ number: Int) { count.add(number, ordering: .relaxed) }
}

func pairsPerSecond(_ kind: String, _ argument: String, seconds: Double) -> Double {
    var outputs: [UnsafeMutablePointer<FILE>] = unsafe []
    for _ in 0..<processes {
        let command = "'/proc/\(getpid())/exe' work \(kind) '\(argument)' \(seconds)"
        guard let output = unsafe popen(command, "r") else { fatalError("popen") }
        unsafe outputs.append(output)
    }
    var sum = 0
    unsafe outputs.forEach { output in
        var line = [CChar](repeating: 0, count: 64)
        unsafe fgets(&line, 64, output)
        sum += Int(String(decoding: line.prefix { $0 > 0x20 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)) ?? 0
        unsafe pclose(output)
    }
    return Double(sum) / seconds
}

@main enum AdmissionBenchmark {
    static func main() throws {
        let arguments = CommandLine.arguments
        if arguments.count == 5, arguments[1] == "work" {
            let seconds = Double(arguments[4]) ?? 1
            if arguments[2] == "gate" {
                work(try Gate(arguments[3]), seconds: seconds)
            } else {
                work(Semaphore(id: CInt(arguments[3]) ?? -1), seconds: seconds)
            }
            return
        }
        let seconds = arguments.count > 1 ? Double(arguments[1]) ?? 2 : 2
        let path = "/dev/shm/admission-benchmark-\(getpid())"
        let id = semget(IPC_PRIVATE, 1, 0o600)
        defer {
            unsafe unlink(path)
            _ = clinux_remove_semaphore(id)
        }
        guard id >= 0, clinux_set_semaphore(id, CInt(limit)) == 0 else { fatalError("no semaphore") }
        let gate = try Gate(path)
        let semaphore = Semaphore(id: id)
        let alone = (gate: nanosecondsAlone(gate), semaphore: nanosecondsAlone(semaphore))
        let contended = (
            gate: pairsPerSecond("gate", path, seconds: seconds),
            semaphore: pairsPerSecond("semaphore", "\(id)", seconds: seconds)
        )
        func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }
        print("                      gate      SysV semaphore   gate / semaphore")
        print(
            "alone, ns             \(Int(alone.gate))       \(Int(alone.semaphore))             "
                + "\(rounded(alone.gate / alone.semaphore))")
        print(
            "contended, pairs/s    \(Int(contended.gate))    \(Int(contended.semaphore))           "
                + "\(rounded(contended.gate / contended.semaphore))")
        print(
            "{\"alone_time_ratio\":\(rounded(alone.gate / alone.semaphore)),"
                + "\"contended_rate_ratio\":\(rounded(contended.gate / contended.semaphore))}")
    }
}
