import Glibc

// The CLI's Bash tool starts each command in a session of its own, and a command with `&` goes on after the CLI has ended
// (seen with CLI 2.1.330), out of reach of a signal to the CLI's process group. What such processes can't lose by
// accident is their environment: each run's CLI gets a marker there, and this sweep ends whatever still bears it.

/// Ends the processes that a run has left behind in other process groups.
public enum ProcessSweep {
    /// Sends SIGKILL to every process of this user whose environment has `marker` as one entry.
    ///
    /// - Parameter marker: `NAME=value`; unique for the run, so that no stranger bears it.
    /// - Returns: How many processes were signalled.
    @discardableResult
    public static func killAll(withEnvironment marker: String) -> Int {
        let wanted = Array(marker.utf8)
        return killAll(look: { processes(withEnvironment: wanted) }, pause: { usleep($0) })
    }

    /// How often is looked again where something was found: it may have forked meanwhile.
    private static let passes = 20
    /// Between two of these looks, in microseconds.
    private static let passPause: UInt32 = 2000
    /// Before each further look where nothing was found and something could not be read, in microseconds: a program is in
    /// place within the first ones, unless the machine gives it no time, or its file has to come from a slow disk.
    private static let unreadPauses: [UInt32] = [2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000]

    /// Kills what a look finds until one finds nothing, and has seen everything.
    ///
    /// - Parameters:
    ///   - look: The processes that are to be killed, and whether all others are known to be none.
    ///   - pause: Sleeps for so many microseconds.
    static func killAll(
        look: () -> (found: [pid_t], isAllRead: Bool), pause: (_ microseconds: UInt32) -> Void
    ) -> Int {
        var killed = 0
        var passesLeft = passes
        var unreadPauses = unreadPauses[...]
        while passesLeft > 0 {
            let (found, isAllRead) = look()
            if found.isEmpty {
                guard !isAllRead, let time = unreadPauses.popFirst() else { break }
                pause(time)
                continue
            }
            passesLeft -= 1
            for pid in found where kill(pid, SIGKILL) == 0 {
                killed += 1
                // Orphans come to the responder when it is their subreaper; elsewhere this says ECHILD.
                waitpid(pid, nil, WNOHANG)
            }
            pause(passPause)
            for pid in found { waitpid(pid, nil, WNOHANG) }
        }
        return killed
    }

    /// - Returns: Also whether every process was in a state to be read.
    static func processes(withEnvironment wanted: [UInt8]) -> (found: [pid_t], isAllRead: Bool) {
        guard let directory = unsafe opendir("/proc") else { return ([], true) }
        defer { unsafe closedir(directory) }
        var found: [pid_t] = []
        var isAllRead = true
        let own = getpid()
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
            }
            guard let pid = pid_t(name), pid != own else { continue }
            let environment = environment(of: pid)
            if environment.isEmpty {
                isAllRead = isAllRead && !isUnread(pid)
            } else if environment.split(separator: 0).contains(where: { $0.elementsEqual(wanted) }) {
                found.append(pid)
            }
        }
        return (found, isAllRead)
    }

    /// Whether a process that has shown no environment may have one all the same: a program takes another's place in it.
    private static func isUnread(_ pid: pid_t) -> Bool {
        var byte: CChar = 0
        // No zombie, no thread of the kernel's, no other user's.
        guard unsafe readlink("/proc/\(pid)/exe", &byte, 1) > 0 else { return false }
        // One whose place is known and that is empty there was given none.
        guard let environment = ProcessStat(of: pid)?.environment else { return true }
        return environment.lowerBound == 0 || !environment.isEmpty
    }

    /// Empty for a zombie and for another user's process, and while a program takes another's place (execve).
    private static func environment(of pid: pid_t) -> [UInt8] {
        let descriptor = unsafe open("/proc/\(pid)/environ", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while true {
            let count = unsafe read(descriptor, &chunk, chunk.count)
            if count <= 0 { return bytes }
            bytes += chunk[..<count]
        }
    }
}
