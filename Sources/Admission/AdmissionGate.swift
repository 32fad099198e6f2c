// Bounds how many CLIs run and how many requests wait, in order of arrival. The bound is this process's: with several
// responders each has its share of the service's limits.

import CLinux
import Glibc
import Synchronization

/// Why a request was not admitted.
public enum AdmissionError: Error, Sendable, Equatable {
    /// Every place to run and to wait is taken.
    case queueFull
    /// No place came free in time.
    case timedOut
    /// The caller left.
    case abandoned
}

/// A bounded number of places to run, with a bounded queue in front.
public final class AdmissionGate: Sendable {
    /// How many are where.
    public struct Counts: Sendable, Equatable {
        /// Requests that hold a place.
        public var running: Int
        /// Requests that wait for one.
        public var waiting: Int
    }

    private struct State {
        var running = 0
        var waiting: [Waiter] = []
    }

    /// A place in the queue; granting writes its eventfd.
    private final class Waiter: Sendable {
        let event: CInt
        init(event: CInt) { self.event = event }
        deinit { if event >= 0 { close(event) } }

        func grant() {
            var one: UInt64 = 1
            _ = unsafe write(event, &one, 8)
        }
    }

    private static let patience = Duration.milliseconds(100)

    /// How many run at most.
    public let concurrency: Int
    /// How many wait at most.
    public let queueLimit: Int
    private let state = Mutex(State())

    /// An empty gate.
    public init(concurrency: Int, queueLimit: Int) {
        self.concurrency = concurrency
        self.queueLimit = queueLimit
    }

    /// How many run and wait now.
    public var counts: Counts { state.withLock { Counts(running: $0.running, waiting: $0.waiting.count) } }

    /// Takes a place, or a place in the queue until one is free.
    ///
    /// - Parameters:
    ///   - deadline: When waiting ends.
    ///   - isAbandoned: Asked at least every 100 ms while waiting.
    /// - Returns: The place; it comes free when the permit leaves scope.
    @available(*, noasync, message: "blocks")
    public func admit(
        until deadline: ContinuousClock.Instant, isAbandoned: () -> Bool
    ) throws(AdmissionError) -> AdmissionPermit {
        let waiter = Waiter(event: clinux_eventfd())
        let isAdmitted: Bool? = state.withLock { state in
            if state.running < concurrency, state.waiting.isEmpty {
                state.running += 1
                return true
            }
            guard state.waiting.count < queueLimit, waiter.event >= 0 else { return nil }
            state.waiting.append(waiter)
            return false
        }
        guard let isAdmitted else { throw .queueFull }
        if isAdmitted { return AdmissionPermit(gate: self) }
        while true {
            let left = deadline - .now
            var entry = pollfd(fd: waiter.event, events: Int16(POLLIN), revents: 0)
            let slice = min(max(left, .zero), Self.patience)
            if unsafe poll(&entry, 1, CInt(slice.components.attoseconds / 1_000_000_000_000_000) + 1) > 0 {
                return AdmissionPermit(gate: self)
            }
            let reason: AdmissionError? = left <= .zero ? .timedOut : isAbandoned() ? .abandoned : nil
            guard let reason else { continue }
            let wasWaiting = state.withLock { state in
                guard let index = state.waiting.firstIndex(where: { $0 === waiter }) else { return false }
                state.waiting.remove(at: index)
                return true
            }
            // Granted in this very moment: the place is taken and given on by the permit.
            if !wasWaiting, reason == .timedOut { return AdmissionPermit(gate: self) }
            if !wasWaiting { release() }
            throw reason
        }
    }

    fileprivate func release() {
        let next: Waiter? = state.withLock { state in
            if state.waiting.isEmpty {
                state.running -= 1
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.grant()
    }
}

/// A place to run, given back when it leaves scope.
public struct AdmissionPermit: ~Copyable {
    private let gate: AdmissionGate

    fileprivate init(gate: AdmissionGate) { self.gate = gate }

    deinit { gate.release() }
}
