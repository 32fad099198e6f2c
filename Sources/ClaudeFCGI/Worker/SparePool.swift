// CLI processes that are started before there is a request for them.
//
// A request takes one that waits; the thread `spares` starts the next, when no request of this responder waits for its first
// piece, so that a start costs none of them anything. A spare serves one conversation and ends with it.
//
// All are warm, but for one where a request came lately that a warm process can't take (`RunRequest.fitsWarmProcess`): the next
// of its kind finds one that is only started, which saves it three quarters of the wait.

import Admission
import CLinux
import Dialects
import Glibc
import Logging
import Synchronization

/// A request that waits for its first piece: while there is one no spare is started.
final class BeginningRequest {
    private let spares: SparePool
    private var hasEnded = false

    init(_ spares: SparePool) {
        self.spares = spares
        spares.requestBegins()
    }

    deinit { end() }

    /// It has it, or comes to nothing.
    func end() {
        if hasEnded { return }
        hasEnded = true
        spares.requestHasBegun()
    }
}

/// A responder's spares.
final class SparePool: Sendable {
    /// Longer than a start and a warming take on a busy machine.
    private static let patience = Duration.seconds(30)
    private static let backOffs = Duration.seconds(1)...Duration.seconds(60)
    private static let lookInterval = Duration.seconds(1)
    /// How long a start waits for the request that often follows one: the result of a tool that takes no time.
    private static let quietNanoseconds: UInt64 = 100_000_000
    /// How long it waits in all for such a pause; a busy service may have none.
    private static let quietPatience = Duration.milliseconds(300)
    /// How long the end waits for a start to be given up.
    private static let abortPatience = Duration.seconds(2)
    /// How long a request that a warm process can't take keeps one for the next: where there are others, and where it is the only
    /// one, which chats then take as well.
    private static let plainMemory = Duration.seconds(600)
    private static let onlyPlainMemory = Duration.seconds(60)

    private struct State {
        var spares: [SpareProcess] = []
        var isDraining = false
        /// When the last request came that a warm process can't take.
        var lastPlainRequest: ContinuousClock.Instant?
    }

    private let launcher: ClaudeLauncher
    private let gate: AdmissionGate
    private let proof: SpareProof
    private let logger: Logger
    private let state = Mutex(State())
    private let wake = clinux_eventfd()
    private let starting = SpareStart()
    /// Whether one is being started, or may be in a moment.
    private let isBusy = Atomic<Bool>(false)
    /// Requests that wait for their first piece.
    private let beginning = Atomic<Int>(0)
    /// When the last one took a spare or had its first piece, by ``clinux_monotonic()``.
    private let lastRequest = Atomic<UInt64>(0)

    private var settings: Settings { launcher.settings }

    init(launcher: ClaudeLauncher, gate: AdmissionGate, logger: Logger) {
        self.launcher = launcher
        self.gate = gate
        self.logger = logger
        proof = SpareProof(launcher: launcher, logger: logger)
    }

    /// Takes a spare for a request, and has another one started.
    ///
    /// - Returns: Nil when none fits: the request starts a process of its own.
    func take(for plan: LaunchPlan, model: ResolvedModel) -> ClaudeWorker? {
        guard settings.spares > 0, plan.directory == .chat, plan.record == .none,
            let identity = launcher.currentIdentity
        else { return nil }
        defer { signal() }
        while true {
            let spare = state.withLock { state -> SpareProcess? in
                // A warm one has been told what only the first line can say.
                let isPlain = !plan.request.fitsWarmProcess
                if isPlain { state.lastPlainRequest = .now }
                let index =
                    state.spares.firstIndex { $0.isWarm != isPlain } ?? (isPlain ? nil : state.spares.indices.first)
                return index.map { state.spares.remove(at: $0) }
            }
            guard let spare else { return nil }
            report()
            lastRequest.store(clinux_monotonic(), ordering: .relaxed)
            if spare.identity == identity, !spare.hasExited { return spare.worker(for: plan, model: model) }
            // Not on this thread: a request waits.
            BackgroundThread.start("spare-end") { spare.discard() }
        }
    }

    /// Another responder that has a spare while this one has none: the kernel wakes one responder more often than the others.
    var otherOwner: Int32? {
        guard settings.spares > 0, state.withLock({ $0.spares.isEmpty }) else { return nil }
        let board = gate.scoreboard()
        let others = board.responders.filter { responder in
            guard responder.spares > 0, responder.pid != getpid() else { return false }
            // One whose threads are all taken would let the request wait.
            return board.requests.count { $0.responderPID == responder.pid } < responder.threads
        }
        return others.max { $0.spares < $1.spares }?.pid
    }

    /// A request waits for its first piece.
    func requestBegins() {
        beginning.add(1, ordering: .relaxed)
        starting.pause()
    }

    /// It has it, or has ended.
    func requestHasBegun() {
        lastRequest.store(clinux_monotonic(), ordering: .relaxed)
        guard beginning.subtract(1, ordering: .relaxed).newValue == 0 else { return }
        starting.goOn()
        signal()
    }

    /// Ends all spares, and starts none any more.
    @available(*, noasync, message: "blocks")
    func drain() {
        let spares = state.withLock { state in
            state.isDraining = true
            defer { state.spares = [] }
            return state.spares
        }
        starting.abort()
        spares.forEach { $0.discard() }
        // What is being started leaves nothing either.
        let deadline = ContinuousClock.now + Self.abortPatience
        while isBusy.load(ordering: .sequentiallyConsistent), ContinuousClock.now < deadline { usleep(2000) }
    }

    private func signal() {
        var one: UInt64 = 1
        _ = unsafe write(wake, &one, 8)
    }

    private func report() {
        let (count, kibibytes) = state.withLock { ($0.spares.count, $0.spares.reduce(0) { $0 + $1.kibibytes }) }
        gate.setSpares(count, kibibytes: kibibytes)
    }

    // MARK: The thread

    /// Starts the thread that keeps the pool full; it ends with the process.
    func start() {
        guard settings.spares > 0 else { return }
        BackgroundThread.start("spares") { [self] in
            var backOff = Self.backOffs.lowerBound
            var lastFailure = ContinuousClock.now
            while true {
                var hasFailed = removeUnfit()
                if !hasFailed, let isStarted = startIfWanted() {
                    if isStarted { continue }
                    hasFailed = true
                }
                if hasFailed {
                    // That one could be started says little where it is not warmed: only time shows that all is well.
                    if lastFailure.duration(to: .now) > Self.backOffs.upperBound * 2 {
                        backOff = Self.backOffs.lowerBound
                    }
                    lastFailure = .now
                    // Who takes a spare does not cut this short.
                    usleep(UInt32(backOff.milliseconds * 1000))
                    backOff = min(backOff * 2, Self.backOffs.upperBound)
                    continue
                }
                var entry = pollfd(fd: wake, events: Int16(POLLIN), revents: 0)
                if unsafe poll(&entry, 1, Self.lookInterval.pollMilliseconds) > 0 {
                    var value: UInt64 = 0
                    _ = unsafe read(wake, &value, 8)
                }
            }
        }
    }

    /// Starts one where there are too few.
    ///
    /// - Returns: Nil when there are not; false when it failed.
    private func startIfWanted() -> Bool? {
        isBusy.store(true, ordering: .sequentiallyConsistent)
        defer { isBusy.store(false, ordering: .sequentiallyConsistent) }
        guard isWanted else { return nil }
        waitForRequests()
        return refill()
    }

    /// Starts one.
    ///
    /// - Returns: False when that failed.
    private func refill() -> Bool {
        guard !isDraining, let identity = launcher.currentIdentity else { return false }
        let kind = proof.kind(identity, starting)
        let share = share
        let isPlain = state.withLock { Self.wantsPlain($0, share: share) }
        do throws(SpareFailure) {
            let spare = try launcher.startSpare(kind, isPlain: isPlain, patience: Self.patience, starting)
            let isKept = state.withLock { state in
                guard !state.isDraining else { return false }
                state.spares.append(spare)
                return true
            }
            if !isKept { spare.discard() }
            report()
            return true
        } catch {
            if !isDraining {
                logger.warning("a spare could not be started", metadata: [LogKey.errorCause: "\(error.cause)"])
            }
            return false
        }
    }

    private var isDraining: Bool { state.withLock { $0.isDraining } }

    private var isWanted: Bool {
        let count = state.withLock { $0.isDraining ? Int.max : $0.spares.count }
        return count < share && !IdleMemory.isShort(settings)
    }

    /// Whether one is wanted that is only started, and there is none.
    private static func wantsPlain(_ state: State, share: Int) -> Bool {
        guard let last = state.lastPlainRequest else { return false }
        return ContinuousClock.now - last < (share > 1 ? plainMemory : onlyPlainMemory)
            && state.spares.allSatisfy { $0.isWarm }
    }

    /// This responder's part of SPARES: all are shared out, none twice.
    private var share: Int {
        let pids = gate.scoreboard().responders.map(\.pid).sorted()
        guard let rank = pids.firstIndex(of: getpid()) else { return 0 }
        return settings.spares / pids.count + (rank < settings.spares % pids.count ? 1 : 0)
    }

    /// Waits until no request would pay for a start: while one waits for its first piece, and for a moment after that.
    private func waitForRequests() {
        let began = ContinuousClock.now
        while began.duration(to: .now) < SpareStart.longestDelay, !isDraining {
            let isQuiet = clinux_monotonic() > lastRequest.load(ordering: .relaxed) + Self.quietNanoseconds
            let isPatient = began.duration(to: .now) < Self.quietPatience
            if beginning.load(ordering: .relaxed) == 0, isQuiet || !isPatient { return }
            usleep(10_000)
        }
    }

    /// Ends spares that are old, dead, of another CLI file, or more than there may be or the memory allows, and a warm one where
    /// it takes the place of one that is only to be started.
    ///
    /// - Returns: Whether one had ended by itself.
    private func removeUnfit() -> Bool {
        let identity = launcher.currentIdentity
        let share = share
        let isShort = IdleMemory.isShort(settings)
        let now = ContinuousClock.now
        let unfit = state.withLock { state in
            let limit = isShort ? 0 : share - (Self.wantsPlain(state, share: share) ? 1 : 0)
            var kept: [SpareProcess] = []
            var unfit: [SpareProcess] = []
            for spare in state.spares {
                let isFit =
                    kept.count < limit && spare.identity == identity && now - spare.started < settings.spareTTL
                    && !spare.hasExited
                if isFit { kept.append(spare) } else { unfit.append(spare) }
            }
            state.spares = kept
            return unfit
        }
        if unfit.isEmpty { return false }
        report()
        let hasDead = unfit.contains { $0.hasExited }
        if hasDead { logger.warning("a spare has ended by itself") }
        unfit.forEach { $0.discard() }
        return hasDead
    }
}
