import CLinux
import Glibc

/// Threads beside those that answer requests; the table of all threads is in docs/ARCHITECTURE.md.
enum BackgroundThread {
    /// Starts a thread that runs `body`; it is never joined, and ends with the process at the latest.
    ///
    /// - Parameter name: Shown by `ps -L`; at most 15 bytes.
    static func start(_ name: String, _ body: @escaping @Sendable () -> Void) {
        let box = unsafe Unmanaged.passRetained(Body(name: name, run: body))
        var thread = pthread_t()
        let result = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let body = unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                unsafe clinux_set_thread_name(body.name)
                body.run()
                return nil
            }, box.toOpaque())
        // The stack of a thread that has ended stays for who joins it.
        if result == 0 { pthread_detach(thread) } else { unsafe box.release() }
    }

    private final class Body: Sendable {
        let name: String
        let run: @Sendable () -> Void

        init(name: String, run: @escaping @Sendable () -> Void) {
            self.name = name
            self.run = run
        }
    }
}
