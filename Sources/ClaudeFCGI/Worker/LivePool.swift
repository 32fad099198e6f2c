// CLI processes that hold a conversation and wait for its next turn.
//
// They are found by a hash of all that the model knows: whose key it is, the parameters, the turns with the last answer. The
// shared segment says which responder has which, and bounds how many there are over all of them: the one unused for longest
// goes first. A request that comes while its process still finishes the answer before waits for it.

import Admission
import CLinux
import Dialects
import Glibc
import Synchronization

/// A responder's live conversations.
final class LivePool: Sendable {
    /// Between two looks at what others have marked, and at the clock.
    private static let lookInterval = Duration.milliseconds(200)
    /// How long a request waits for a process that is about to be free.
    private static let expectationPatience = Duration.milliseconds(500)

    private struct Entry {
        let worker: ClaudeWorker
        let since: ContinuousClock.Instant
        /// Its own memory.
        let kibibytes: Int
    }

    private struct State {
        var entries: [LiveHash: [Entry]] = [:]
        /// Conversations whose process has answered and is not parked yet.
        var expected: [LiveHash: Int] = [:]
        var isDraining = false
    }

    private let settings: Settings
    private let gate: AdmissionGate
    private let state = Mutex(State())
    private let wake = clinux_eventfd()

    init(settings: Settings, gate: AdmissionGate) {
        self.settings = settings
        self.gate = gate
    }

    /// Whether conversations are kept at all.
    var isOn: Bool { settings.liveMax > 0 }

    /// What a request continues; nil where no process is kept for such a one.
    func continued(by request: RunRequest, model: ResolvedModel, client: String) -> ContinuedConversation? {
        isOn && request.allowsLive ? ContinuedConversation(request, model: model, client: client) : nil
    }

    /// The responder that has a conversation.
    func owner(of hash: LiveHash) -> LiveOwner? { gate.findLive(hash) }

    /// Takes the process of a conversation.
    ///
    /// - Returns: Nil when this responder has none.
    @available(*, noasync, message: "waits for one that is about to be free")
    func take(_ hash: LiveHash) -> ClaudeWorker? {
        let deadline = ContinuousClock.now + Self.expectationPatience
        while true {
            let (worker, isExpected) = state.withLock { state -> (ClaudeWorker?, Bool) in
                let worker = Self.remove(hash, from: &state)
                return (worker, worker == nil && (state.expected[hash] ?? 0) > 0)
            }
            if let worker {
                gate.withdrawLive(hash)
                if !worker.hasExited { return worker }
                worker.discard()
                continue
            }
            guard isExpected, ContinuousClock.now < deadline else { return nil }
            usleep(1000)
        }
    }

    /// A conversation's process has answered: it will be there in a moment, or ``disappoint(_:)`` is called.
    func expect(_ hash: LiveHash) {
        state.withLock { $0.expected[hash, default: 0] += 1 }
        end(gate.publishLive(hash, limit: settings.liveMax).filter { $0 != hash })
    }

    /// What was expected does not come.
    func disappoint(_ hash: LiveHash) {
        state.withLock { Self.forget(hash, in: &$0) }
        gate.withdrawLive(hash)
    }

    /// Leaves the process of an expected conversation to wait for its next turn.
    ///
    /// - Returns: False where it can't wait: its owner ends it.
    func keep(_ worker: ClaudeWorker, as hash: LiveHash) -> Bool {
        guard worker.park(), !IdleMemory.isShort(settings) else {
            disappoint(hash)
            return false
        }
        let kibibytes = IdleMemory.own(of: worker.process.child.pid)
        let isKept = state.withLock { state in
            Self.forget(hash, in: &state)
            guard !state.isDraining else { return false }
            state.entries[hash, default: []].append(Entry(worker: worker, since: .now, kibibytes: kibibytes))
            return true
        }
        if !isKept { gate.withdrawLive(hash) }
        var one: UInt64 = 1
        _ = unsafe write(wake, &one, 8)
        return isKept
    }

    /// Ends all, and keeps none any more.
    @available(*, noasync, message: "blocks")
    func drain() {
        let workers = state.withLock { state in
            state.isDraining = true
            defer { state.entries = [:] }
            return state.entries.values.flatMap { $0.map(\.worker) }
        }
        workers.forEach { $0.discard() }
    }

    private static func remove(_ hash: LiveHash, from state: inout State) -> ClaudeWorker? {
        let entry = state.entries[hash]?.popLast()
        if state.entries[hash]?.isEmpty == true { state.entries[hash] = nil }
        return entry?.worker
    }

    private static func forget(_ hash: LiveHash, in state: inout State) {
        let count = (state.expected[hash] ?? 0) - 1
        state.expected[hash] = count > 0 ? count : nil
    }

    /// Ends processes, not on the caller's thread: a request waits there.
    private func end(_ hashes: [LiveHash]) {
        guard !hashes.isEmpty else { return }
        let workers = state.withLock { state in hashes.compactMap { Self.remove($0, from: &state) } }
        for hash in hashes { gate.withdrawLive(hash) }
        if !workers.isEmpty { BackgroundThread.start("live-end") { workers.forEach { $0.discard() } } }
    }

    // MARK: The thread

    /// Starts the thread that reads what waiting processes write, and ends them in time; it ends with the process.
    func start() {
        guard isOn else { return }
        BackgroundThread.start("live") { [self] in
            while true {
                let waiting = state.withLock { state in
                    state.entries.flatMap { hash, entries in entries.map { (hash, $0.worker) } }
                }
                var polled = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0)]
                for (_, worker) in waiting {
                    let (output, exit) = worker.descriptors
                    polled.append(pollfd(fd: output, events: Int16(POLLIN), revents: 0))
                    polled.append(pollfd(fd: exit, events: Int16(POLLIN), revents: 0))
                }
                let interval = waiting.isEmpty ? Duration.seconds(1) : Self.lookInterval
                if unsafe poll(&polled, nfds_t(polled.count), interval.pollMilliseconds) > 0 {
                    if polled[0].revents != 0 {
                        var value: UInt64 = 0
                        _ = unsafe read(wake, &value, 8)
                    }
                    for (index, (hash, worker)) in waiting.enumerated()
                    where polled[1 + 2 * index].revents != 0 || polled[2 + 2 * index].revents != 0 {
                        look(at: worker, hash)
                    }
                }
                end(gate.evictedLive())
                removeUnfit()
                gate.setLive(
                    kibibytes: state.withLock { state in
                        state.entries.values.joined().reduce(0) { $0 + $1.kibibytes }
                    })
            }
        }
    }

    /// Reads what a process has written; one that can't go on is ended.
    private func look(at worker: ClaudeWorker, _ hash: LiveHash) {
        let isLost = state.withLock { state in
            // Taken by a request meanwhile: no business of this thread's.
            guard let index = state.entries[hash]?.firstIndex(where: { $0.worker === worker }) else { return false }
            if worker.readParked(), !worker.hasExited { return false }
            state.entries[hash]?.remove(at: index)
            if state.entries[hash]?.isEmpty == true { state.entries[hash] = nil }
            return true
        }
        guard isLost else { return }
        gate.withdrawLive(hash)
        worker.discard()
    }

    /// Ends what has waited for too long, and the one that has waited longest where memory is short.
    private func removeUnfit() {
        let isShort = IdleMemory.isShort(settings)
        let now = ContinuousClock.now
        let unfit = state.withLock { state in
            let all = state.entries.flatMap { hash, entries in entries.map { (hash, $0) } }
            var unfit = all.filter { now - $0.1.since > settings.liveTTL }
            if unfit.isEmpty, isShort, let oldest = all.min(by: { $0.1.since < $1.1.since }) { unfit = [oldest] }
            for (hash, entry) in unfit {
                state.entries[hash]?.removeAll { $0.worker === entry.worker }
                if state.entries[hash]?.isEmpty == true { state.entries[hash] = nil }
            }
            return unfit
        }
        for (hash, entry) in unfit {
            gate.withdrawLive(hash)
            entry.worker.discard()
        }
    }
}
