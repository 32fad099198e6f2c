import Glibc

/// How much memory the machine has left, for processes that only wait.
enum IdleMemory {
    /// What the kernel could give without swapping, in bytes; nil where it does not say.
    static var available: Int? {
        guard let text = try? Files.read("/proc/meminfo", limitBytes: 65536),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("MemAvailable:") })
        else { return nil }
        return line.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
    }

    /// What a process has for itself, in KiB: not the program, which others of its kind share.
    static func own(of pid: Int32) -> Int {
        let text = (try? Files.read("/proc/\(pid)/status", limitBytes: 65536)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
        return line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int($0) } ?? 0
    }

    /// Whether less is left than the operator wants kept free.
    static func isShort(_ settings: Settings) -> Bool {
        guard let available else { return false }
        return available < settings.memoryHeadroomBytes
    }
}
