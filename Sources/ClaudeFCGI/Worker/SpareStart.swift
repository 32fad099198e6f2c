import Glibc
import Synchronization

/// The start of one spare at a time: it stands still while a request of this responder waits for its first piece.
///
/// A start keeps a processor busy for a third of a second, and the next turn of a conversation may come within that time of
/// the one that took the spare: the result of a tool does.
final class SpareStart: Sendable {
    /// How long one start is held up in all; then it goes on whatever waits, or a busy service would have no spares.
    static let longestDelay = Duration.seconds(2)

    private struct State {
        /// The process group; 0 for none.
        var group: pid_t = 0
        var isHeldUp = false
        var pausedSince: ContinuousClock.Instant?
        var delay = Duration.zero
        var isAborted = false
    }

    private let state = Mutex(State())

    /// The process has been started.
    func begin(_ group: pid_t) {
        state.withLock { state in
            state = State(group: group, isHeldUp: state.isHeldUp, isAborted: state.isAborted)
            if state.isAborted { kill(-group, SIGKILL) } else { Self.stop(&state) }
        }
    }

    /// It is ready, or has failed; it runs.
    func end() {
        state.withLock { state in
            Self.goOn(&state)
            state.group = 0
        }
    }

    /// Whether nothing is to be started any more.
    var isAborted: Bool { state.withLock { $0.isAborted } }

    /// Ends the process, and any that is started later.
    func abort() {
        state.withLock { state in
            state.isAborted = true
            if state.group > 1 { kill(-state.group, SIGKILL) }
        }
    }

    /// A request waits.
    func pause() {
        state.withLock { state in
            state.isHeldUp = true
            Self.stop(&state)
        }
    }

    /// None does any more.
    func goOn() {
        state.withLock { state in
            state.isHeldUp = false
            Self.goOn(&state)
        }
    }

    /// To be called every so often between ``begin(_:)`` and ``end()``.
    func look() {
        state.withLock { state in
            guard let since = state.pausedSince, state.delay + (.now - since) > Self.longestDelay else { return }
            Self.goOn(&state)
        }
    }

    private static func stop(_ state: inout State) {
        guard state.isHeldUp, state.group > 1, state.pausedSince == nil, state.delay < longestDelay,
            kill(-state.group, SIGSTOP) == 0
        else { return }
        state.pausedSince = .now
    }

    private static func goOn(_ state: inout State) {
        guard let since = state.pausedSince else { return }
        kill(-state.group, SIGCONT)
        state.delay += .now - since
        state.pausedSince = nil
    }
}
