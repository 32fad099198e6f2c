import Glibc

/// Tells a process from a later one with the same number.
public enum ProcessIdentity {
    /// When the process started, in clock ticks since boot (proc(5), `stat`, field 22); nil when there is none.
    public static func startTime(of pid: pid_t) -> UInt64? {
        let descriptor = unsafe open("/proc/\(pid)/stat", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = unsafe read(descriptor, &bytes, bytes.count)
        // The name, field 2, is in parentheses and may hold anything, parentheses too: fields are counted from the last one.
        guard count > 0, let end = bytes[..<count].lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = bytes[(end + 1)..<count].split(separator: UInt8(ascii: " "))
        return fields.count > 19 ? UInt64(String(decoding: fields[19], as: UTF8.self)) : nil
    }
}
