import Glibc

/// Waits for SIGTERM, SIGINT or SIGHUP on a thread of its own.
struct StopSignals {
    private static let numbers = [SIGTERM, SIGINT]

    /// Blocks the signals in the calling thread and all that it starts later; call it before any thread exists.
    init() {
        var set = Self.set
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    private static var set: sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        return set
    }

    /// Calls `stop` with the signal's name at the first signal.
    ///
    /// A second one ends the process at once: its runs' processes go with it.
    func onStop(_ stop: @escaping @Sendable (String) -> Void) {
        let box = unsafe Unmanaged.passRetained(Box(stop))
        var thread = pthread_t()
        _ = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let box = unsafe Unmanaged<Box>.fromOpaque(argument).takeRetainedValue()
                var set = StopSignals.set
                var number: CInt = 0
                _ = unsafe sigwait(&set, &number)
                box.stop(number == SIGTERM ? "SIGTERM" : "SIGINT")
                _ = unsafe sigwait(&set, &number)
                _exit(128 + number)
            }, box.toOpaque())
    }

    private final class Box: Sendable {
        let stop: @Sendable (String) -> Void
        init(_ stop: @escaping @Sendable (String) -> Void) { self.stop = stop }
    }
}
