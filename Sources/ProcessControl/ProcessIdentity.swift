import Glibc

/// Tells a process from a later one with the same number.
public enum ProcessIdentity {
    /// When the process started, in clock ticks since boot; nil when there is none.
    public static func startTime(of pid: pid_t) -> UInt64? {
        ProcessStat(of: pid)?.startTime
    }

    /// Whether a process exists and has not ended: one that was killed stays in the table until its parent has looked.
    ///
    /// - Parameter startTime: What ``startTime(of:)`` says of the process that is meant; nil for any with this number.
    public static func isAlive(_ pid: pid_t, startTime: UInt64? = nil) -> Bool {
        guard pid > 0, kill(pid, 0) == 0 || errno == EPERM else { return false }
        // One that can't be looked at, for want of a descriptor, say, is not given up.
        guard let stat = ProcessStat(of: pid) else { return true }
        return !stat.hasEnded && (startTime == nil || startTime == stat.startTime)
    }
}

/// What the kernel says of a process: proc(5), `stat`.
struct ProcessStat {
    /// The fields from the third one on.
    private let fields: [ArraySlice<UInt8>]

    /// Reads the file; nil when there is none.
    init?(of pid: pid_t) {
        let descriptor = unsafe open("/proc/\(pid)/stat", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 2048)
        let count = unsafe read(descriptor, &bytes, bytes.count)
        // The name, field 2, is in parentheses and may hold anything, parentheses too: fields are counted from the last one.
        guard count > 0, let end = bytes[..<count].lastIndex(of: UInt8(ascii: ")")) else { return nil }
        fields = bytes[(end + 1)..<count].split(separator: UInt8(ascii: " "))
    }

    /// When it started, in clock ticks since boot.
    var startTime: UInt64? { number(22) }

    /// Whether all of it has ended.
    ///
    /// The state is the first thread's: while others are being killed, they may still be in a write.
    var hasEnded: Bool {
        guard let state = fields.first?.first, [UInt8(ascii: "Z"), UInt8(ascii: "X")].contains(state) else {
            return false
        }
        return (number(20) ?? 0) <= 1
    }

    /// Where its program found its environment, in its memory; 0 to 0 before the kernel has put it there.
    var environment: Range<UInt64>? {
        guard let start = number(50), let end = number(51), start <= end else { return nil }
        return start..<end
    }

    /// A field, by its number in proc(5).
    private func number(_ field: Int) -> UInt64? {
        fields.count > field - 3 ? UInt64(String(decoding: fields[field - 3], as: UTF8.self)) : nil
    }
}
