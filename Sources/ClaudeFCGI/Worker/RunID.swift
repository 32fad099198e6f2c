import CLinux
import Glibc
import Synchronization

/// A run's id: unique on this machine, and naming the process that made it.
struct RunID: Sendable, Equatable {
    private static let counter = Atomic<UInt32>(0)

    /// The responder.
    let pid: Int32
    /// When, in seconds since 1970.
    let seconds: UInt64
    /// The how manieth of the responder.
    let count: UInt32

    /// A new id.
    static func next() -> RunID {
        RunID(
            pid: getpid(), seconds: UInt64(WallClock.now.seconds),
            count: counter.wrappingAdd(1, ordering: .relaxed).newValue)
    }

    /// `PID-SECONDS-COUNT`, the last two in base 36: short, because socket paths are bounded.
    var text: String { "\(pid)-\(String(seconds, radix: 36))-\(String(count, radix: 36))" }
}

/// Random identifiers for clients.
enum UUIDText {
    /// Whether the text is a UUID and nothing else: safe as a file's name.
    static func isUUID(_ text: String) -> Bool {
        text.utf8.count == 36
            && text.utf8.enumerated().allSatisfy { index, byte in
                [8, 13, 18, 23].contains(index)
                    ? byte == UInt8(ascii: "-") : "0123456789abcdefABCDEF".utf8.contains(byte)
            }
    }

    /// A version 4 UUID.
    static func random() -> String {
        var generator = SystemRandomNumberGenerator()
        let high = generator.next() & 0xFFFF_FFFF_FFFF_0FFF | 0x4000
        let low = generator.next() & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        func hex(_ value: UInt64, _ digits: Int) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: digits - text.count) + text
        }
        return [
            hex(high >> 32, 8), hex(high >> 16 & 0xFFFF, 4), hex(high & 0xFFFF, 4), hex(low >> 48, 4),
            hex(low & 0xFFFF_FFFF_FFFF, 12),
        ].joined(separator: "-")
    }
}

/// The time of day.
enum WallClock {
    /// Seconds and nanoseconds since 1970.
    static var now: (seconds: Int, nanoseconds: Int) {
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return (Int(time.tv_sec), Int(time.tv_nsec))
    }
}
