// Who may run: at most `concurrency` runs and `queueLimit` waiting requests, over all responder processes together.
//
// Places go to waiting requests in order of arrival; with several client keys the next place goes round the keys that wait,
// oldest first within a key. A freed place is handed over: the releasing thread marks the next waiter's entry as running
// and wakes it, so no newcomer can slip in between. Whoever waits wakes every 100 ms to look at its deadline, its client and
// the other owners; whoever finds an owner dead frees what it held.
//
// Nothing here may trap on a shared value: another process, perhaps of another version, wrote it.

import CLinux
import Glibc
import Synchronization

/// Why a request was not admitted.
public enum AdmissionError: Error, Sendable, Equatable {
    /// Every place to run and to wait is taken; when a new try makes sense.
    case queueFull(retryAfter: Duration)
    /// No place came free in time.
    case timedOut
    /// The caller left.
    case abandoned
    /// This process is ending.
    case draining
}

/// What a request's thread does; shown by `claude-fcgi status`.
public enum RequestStage: UInt32, Sendable, CaseIterable {
    /// It waits for a place.
    case waiting = 1
    /// The CLI is being started.
    case starting
    /// The CLI works; nothing of the answer has come.
    case running
    /// The answer is on its way to the client.
    case replying
    /// It waits before another attempt.
    case retrying
    /// The reply is out; the CLI is being ended.
    case finishing
}

/// Shows what a request's thread does; of no effect on anything else.
public struct RequestStageCell: Sendable {
    fileprivate let segment: AdmissionSegment
    fileprivate let entry: Int

    /// The thread does this now.
    public func enter(_ stage: RequestStage) { unsafe clinux_store(&segment.entries[entry].stage, stage.rawValue) }
}

/// Whose request asks for a place.
public struct AdmissionClient: Sendable, Equatable {
    /// Tells clients apart, the same in every process; not 0.
    public var hash: UInt64
    /// The name shown to the operator.
    public var name: String
    /// How many of this client's requests run at most; nil for no limit of its own.
    public var concurrency: Int?
    /// How many of this client's requests wait at most; nil for no limit of its own.
    public var queueLimit: Int?

    /// A client; its hash is made of the name.
    public init(name: String, concurrency: Int? = nil, queueLimit: Int? = nil) {
        self.name = name
        self.concurrency = concurrency
        self.queueLimit = queueLimit
        // 0 marks a free row of the table.
        hash = max(FNV1a.hash(name), 1)
    }
}

/// The hash of Fowler, Noll and Vo, 64 bits: the same in every process.
enum FNV1a {
    static func hash(_ text: String) -> UInt64 {
        text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    }
}

/// A request for a place, with what the operator is shown of it.
public struct AdmissionRequest: Sendable, Equatable {
    /// Whose it is.
    public var client: AdmissionClient
    /// The route's number, as the program counts them.
    public var route: UInt32
    /// The model; empty for the default.
    public var model: String
    /// The conversation that it goes on with: of requests with the same number one runs at a time, in order of arrival; 0
    /// for none.
    public var session: UInt64

    /// A request.
    public init(client: AdmissionClient, route: UInt32 = 0, model: String = "", session: UInt64 = 0) {
        self.client = client
        self.route = route
        self.model = model
        self.session = session
    }

    /// The number of a conversation, the same in every process; never 0.
    public static func sessionNumber(_ id: String) -> UInt64 { max(FNV1a.hash(id), 1) }
}

/// A run whose responder died: what is left of it must be ended by whoever found it.
public struct OrphanedRun: Sendable, Equatable {
    /// The responder that died.
    public var ownerPID: Int32
    /// The run's process group; 0 if it was not started yet.
    public var processGroup: Int32
    /// The group leader's start time, in clock ticks since boot.
    public var processStartTime: UInt64
    /// The run's id, as its owner recorded it.
    public var runSeconds: UInt64
    /// The second half of the id.
    public var runCount: UInt32
}

/// Bounds how many requests run and wait.
public final class AdmissionGate: Sendable {
    /// How many are where, over all responders.
    public struct Counts: Sendable, Equatable {
        /// Requests that hold a place.
        public var running: Int
        /// Requests that wait for one.
        public var waiting: Int
    }

    /// The bounds.
    public struct Limits: Sendable, Equatable {
        /// How many run at most.
        public var concurrency: Int
        /// How many wait at most.
        public var queueLimit: Int

        /// Bounds.
        public init(concurrency: Int, queueLimit: Int) {
            self.concurrency = concurrency
            self.queueLimit = queueLimit
        }
    }

    /// How long a waiter sleeps at most before it looks around.
    private static let sliceMilliseconds: CInt = 100
    /// How often the owners are looked at, by whichever process is first.
    private static let reapInterval: UInt64 = 100_000_000
    /// Before any run has ended, a guess for Retry-After.
    private static let assumedRun: UInt64 = 10_000_000_000

    let segment: AdmissionSegment
    let isDraining = Atomic<Bool>(false)
    private let onOrphans: @Sendable ([OrphanedRun]) -> Void

    /// Joins the segment at `path`, made if it is not there, and sets its limits.
    ///
    /// - Parameters:
    ///   - threads: How many request threads this process has; shown to the operator.
    ///   - onOrphans: Called without the lock, on whichever thread found a dead responder's runs.
    public init(
        path: String, limits: Limits, threads: Int, onOrphans: @escaping @Sendable ([OrphanedRun]) -> Void
    ) throws(AdmissionSegmentError) {
        self.onOrphans = onOrphans
        segment = try AdmissionSegment(path: path, threads: threads)
        let wake = segment.withLock { segment in
            unsafe segment.header.pointee.concurrency = UInt32(clamping: limits.concurrency)
            unsafe segment.header.pointee.queue_limit = UInt32(clamping: limits.queueLimit)
            return segment.grant()
        }
        segment.wake(wake)
        reap()
    }

    /// How many run and wait now.
    public var counts: Counts { segment.withLock { $0.counts() } }

    /// How many conversations have a run now.
    public var busySessionCount: Int { segment.withLock { $0.busySessionCount() } }

    /// Whether a request of this conversation runs or waits now.
    public func isBusy(session: UInt64) -> Bool { segment.withLock { $0.isInUse(session: session) } }

    /// The limits in force: those of the responder that was started last.
    public var limits: Limits {
        segment.withLock { segment in
            unsafe Limits(
                concurrency: Int(segment.header.pointee.concurrency),
                queueLimit: Int(segment.header.pointee.queue_limit))
        }
    }

    /// Takes a place, or a place in the queue until one is free.
    ///
    /// - Parameters:
    ///   - request: Whose it is; its client has the same hash in every process.
    ///   - deadline: When waiting ends.
    ///   - isAbandoned: Asked at least every 100 ms while waiting.
    /// - Returns: The place; it comes free when the permit leaves scope.
    @available(*, noasync, message: "blocks")
    public func admit(
        _ request: AdmissionRequest, until deadline: ContinuousClock.Instant, isAbandoned: () -> Bool
    ) throws(AdmissionError) -> AdmissionPermit {
        var entry = segment.withLock { $0.enter(request) }
        if entry == nil {
            // Perhaps a dead responder's requests fill the queue: look before saying no.
            reap(isForced: true)
            entry = segment.withLock { $0.enter(request) }
        }
        guard let entry else {
            let error = AdmissionError.queueFull(
                retryAfter: segment.withLock { $0.retryAfter(assumed: Self.assumedRun) })
            segment.note(error)
            throw error
        }
        let permit = AdmissionPermit(segment: segment, entry: entry)
        while !segment.isRunning(entry) {
            let left = deadline - .now
            let error: AdmissionError? =
                isDraining.load(ordering: .relaxed)
                ? .draining : left <= .zero ? .timedOut : isAbandoned() ? .abandoned : nil
            if let error {
                segment.note(error)
                // Leaving scope, the permit frees the entry, and hands the place on if it was granted in this moment.
                throw error
            }
            let milliseconds = left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000 + 1
            segment.sleep(entry, milliseconds: CInt(min(milliseconds, Int64(Self.sliceMilliseconds))))
            reap()
        }
        return permit
    }

    /// Ends all waiting in this process; what runs goes on.
    ///
    /// Its live conversations are not to be found any more.
    public func drain() {
        isDraining.store(true, ordering: .relaxed)
        segment.withLock { $0.removeLive(ofOwner: $0.owner) }
    }

    /// Frees what dead responders held, unless someone did so in the last 100 ms.
    public func reap(isForced: Bool = false) {
        let now = clinux_monotonic()
        let result: (orphans: [OrphanedRun], wake: [Int])? = segment.withLock { segment in
            let last = unsafe segment.header.pointee.last_reap
            // The other process's clock is ours; a garbled value must only not stop reaping for ever.
            if !isForced, now &- last < Self.reapInterval, last <= now { return nil }
            unsafe segment.header.pointee.last_reap = now
            return (segment.removeDeadOwners(), segment.grant())
        }
        guard let result else { return }
        segment.wake(result.wake)
        if !result.orphans.isEmpty { onOrphans(result.orphans) }
    }
}

/// A place to run or to wait, given back when it leaves scope.
public struct AdmissionPermit: ~Copyable {
    private let segment: AdmissionSegment
    private let entry: Int

    init(segment: AdmissionSegment, entry: Int) {
        self.segment = segment
        self.entry = entry
    }

    deinit {
        let wake = segment.withLock { segment in
            segment.leave(entry)
            return segment.grant()
        }
        segment.wake(wake)
    }

    /// When the request arrived and when it got its place, as the gate counts: a ticket, and nanoseconds of the
    /// monotonic clock.
    ///
    /// Within a client's key the two have one order.
    public var turn: (ticket: UInt64, granted: UInt64) {
        segment.withLock { segment in
            unsafe (segment.entries[entry].ticket, segment.entries[entry].started)
        }
    }

    /// Where the operator is shown what the request's thread does.
    public var stage: RequestStageCell { RequestStageCell(segment: segment, entry: entry) }

    /// Records what must be ended if this responder dies.
    public func record(processGroup: Int32, startTime: UInt64, runSeconds: UInt64, runCount: UInt32) {
        segment.withLock { segment in
            unsafe segment.entries[entry].group = processGroup
            unsafe segment.entries[entry].group_started = startTime
            unsafe segment.entries[entry].run_seconds = runSeconds
            unsafe segment.entries[entry].run_count = runCount
        }
    }
}
