import Glibc

/// Waits for signals on a thread of its own: SIGTERM and SIGINT drain, SIGHUP reads the keys anew.
struct ServiceSignals {
    private static let numbers = [SIGTERM, SIGINT, SIGHUP]

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

    /// Starts the thread.
    ///
    /// - Parameters:
    ///   - stop: Called with the first ending signal's name. A second one ends the process at once, and its runs'
    ///     processes with it.
    ///   - reload: Called at each SIGHUP.
    func handle(stop: @escaping @Sendable (String) -> Void, reload: @escaping @Sendable () -> Void) {
        BackgroundThread.start("signals") {
            var set = Self.set
            var isStopping = false
            while true {
                var number: CInt = 0
                _ = unsafe sigwait(&set, &number)
                if number == SIGHUP {
                    reload()
                } else if isStopping {
                    _exit(128 + number)
                } else {
                    isStopping = true
                    stop(number == SIGTERM ? "SIGTERM" : "SIGINT")
                }
            }
        }
    }
}
