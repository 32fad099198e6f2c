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
        var killed = 0
        var unread = 0
        // A process may fork while the list is read: repeat until a pass finds none.
        for _ in 0..<20 {
            let (found, isAllRead) = processes(withEnvironment: wanted)
            if found.isEmpty {
                // A program is in place within the time of a few looks; one without any environment stays so.
                unread += 1
                if isAllRead || unread == unreadLooks { break }
            }
            for pid in found where kill(pid, SIGKILL) == 0 {
                killed += 1
                // Orphans come to the responder when it is their subreaper; elsewhere this says ECHILD.
                waitpid(pid, nil, WNOHANG)
            }
            usleep(2000)
            for pid in found { waitpid(pid, nil, WNOHANG) }
        }
        return killed
    }

    private static let unreadLooks = 4

    /// - Returns: Also whether every process was in a state to be read.
    private static func processes(withEnvironment wanted: [UInt8]) -> (found: [pid_t], isAllRead: Bool) {
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
                isAllRead = isAllRead && !hasProgram(pid)
            } else if environment.split(separator: 0).contains(where: { $0.elementsEqual(wanted) }) {
                found.append(pid)
            }
        }
        return (found, isAllRead)
    }

    /// Whether the process is a program's: no zombie, no thread of the kernel's, no other user's.
    private static func hasProgram(_ pid: pid_t) -> Bool {
        var byte: CChar = 0
        return unsafe readlink("/proc/\(pid)/exe", &byte, 1) > 0
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
