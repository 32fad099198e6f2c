import Admission
import CLinux
import Glibc

/// Looks at the other responders from time to time, for when no request waits that would do so.
enum Reaper {
    private static let intervalMicroseconds: UInt32 = 200_000

    /// Starts the thread; it ends with the process.
    static func start(_ gate: AdmissionGate) {
        let box = unsafe Unmanaged.passRetained(gate)
        var thread = pthread_t()
        _ = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let gate = unsafe Unmanaged<AdmissionGate>.fromOpaque(argument).takeRetainedValue()
                unsafe clinux_set_thread_name("reaper")
                while true {
                    usleep(Reaper.intervalMicroseconds)
                    gate.reap()
                }
            }, box.toOpaque())
    }
}
