import Glibc

/// RFC 3339 times in UTC.
enum Timestamp {
    /// Now, with milliseconds.
    static func now() -> String {
        let (seconds, nanoseconds) = WallClock.now
        let milliseconds = nanoseconds / 1_000_000
        let zeros = String(repeating: "0", count: milliseconds < 10 ? 2 : milliseconds < 100 ? 1 : 0)
        return "\(dateAndTime(seconds)).\(zeros)\(milliseconds)Z"
    }

    /// `2026-11-24T17:03:11Z`, from seconds since 1970.
    static func text(_ seconds: Int) -> String { dateAndTime(seconds) + "Z" }

    private static func dateAndTime(_ seconds: Int) -> String {
        var time = time_t(seconds)
        var parts = unsafe tm()
        unsafe gmtime_r(&time, &parts)
        let (year, month, day) = unsafe (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday)
        let (hour, minute, second) = unsafe (parts.tm_hour, parts.tm_min, parts.tm_sec)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(year)-\(two(month))-\(two(day))T\(two(hour)):\(two(minute)):\(two(second))"
    }
}
