import Admission
import Glibc

/// Looks at the other responders from time to time, for when no request waits that would do so.
enum Reaper {
    private static let intervalMicroseconds: UInt32 = 200_000

    /// Starts the thread; it ends with the process.
    static func start(_ gate: AdmissionGate) {
        BackgroundThread.start("reaper") {
            while true {
                usleep(intervalMicroseconds)
                gate.reap()
            }
        }
    }
}
