/// Whether the CLI writes its deltas faster than it is worth being woken for each.
///
/// A woken thread costs several times what a delta does. In a burst the pump waits a moment before each read, so that a few
/// deltas come at once and leave in one write. A model that is asked over a network writes a delta every few milliseconds:
/// such a stream is never held up, nor is the beginning of any.
struct DeltaBurst {
    /// The wait, in microseconds: a quarter of what may be added to a delta.
    static let pauseMicroseconds: UInt32 = 250
    private static let quickGap = Duration.microseconds(150)
    private static let quickReads = 16

    /// Whether to wait before the next read.
    private(set) var isOn = false
    private var quickCount = 0
    private var lastRead: ContinuousClock.Instant?

    /// A read brought so many lines.
    mutating func read(lines: Int, at now: ContinuousClock.Instant = .now) {
        defer { lastRead = now }
        if isOn {
            // One at a time again: waiting would bring nothing.
            if lines > 1 { return }
            self = DeltaBurst()
            return
        }
        let isQuick = lastRead.map { $0.duration(to: now) < Self.quickGap } ?? false
        quickCount = isQuick ? quickCount + 1 : 0
        isOn = quickCount >= Self.quickReads
    }
}
