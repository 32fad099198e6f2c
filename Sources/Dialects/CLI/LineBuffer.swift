import func Glibc.memchr
import func Glibc.memmove

/// Cuts a stream of bytes into lines, wherever the reads happen to split it.
///
/// What is read lands where it is taken from: nothing is copied but the beginning of a line whose end has not come.
public struct LineBuffer: Sendable {
    /// A line longer than the limit.
    public struct LineTooLong: Error, Sendable, Equatable {
        /// The limit.
        public var limitBytes: Int
    }

    /// At least so much room is given to a read: what a pipe holds.
    public static let readBytes = 65536

    /// Where the lines lie, until the next ``append(reading:)``; what is behind the last one is of no meaning.
    public private(set) var bytes: [UInt8] = []
    private let limitBytes: Int
    /// Taken up to here, searched up to here, filled up to here.
    private var consumed = 0
    private var scanned = 0
    private var filled = 0

    /// An empty buffer.
    public init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// Adds what is read.
    ///
    /// - Parameter read: Puts bytes at the beginning of the room that it is given, as read(2) does; says how many, or that
    ///   there are none.
    /// - Returns: What `read` returned.
    /// - Throws: ``LineTooLong`` when a line without end has outgrown the limit; the buffer is of no more use then.
    public mutating func append(reading read: (UnsafeMutableRawBufferPointer) -> Int) throws(LineTooLong) -> Int {
        makeRoom()
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe read(.init(rebasing: $0[filled...])) }
        guard count > 0 else { return count }
        filled += count
        if filled - consumed > limitBytes, newline() == nil { throw LineTooLong(limitBytes: limitBytes) }
        return count
    }

    /// The next whole line's place in ``bytes``, without its newline; nil when there is none yet.
    public mutating func nextLine() -> Range<Int>? {
        guard let end = newline() else {
            scanned = filled
            return nil
        }
        let line = consumed..<end
        consumed = end + 1
        scanned = consumed
        return line
    }

    /// Gives the memory of a long line back, where nothing is kept in it.
    private mutating func makeRoom() {
        let kept = filled - consumed
        if kept == 0, bytes.count > 2 * Self.readBytes { bytes = [] }
        if consumed > 0, kept > 0, bytes.count - filled < Self.readBytes {
            unsafe bytes.withUnsafeMutableBytes { buffer in
                guard let base = buffer.baseAddress else { return }
                _ = unsafe memmove(base, base + consumed, kept)
            }
        }
        if kept == 0 || bytes.count - filled < Self.readBytes {
            scanned -= consumed
            filled = kept
            consumed = 0
        }
        let missing = Self.readBytes - (bytes.count - filled)
        // Doubling, so that a long line is not moved for each of its reads.
        if missing > 0 { bytes.append(contentsOf: repeatElement(0, count: max(missing, bytes.count))) }
    }

    private func newline() -> Int? {
        unsafe bytes.withUnsafeBytes { buffer in
            guard scanned < filled, let base = buffer.baseAddress,
                let found = unsafe memchr(base + scanned, 0x0A, filled - scanned)
            else { return nil }
            return unsafe UnsafeRawPointer(found) - base
        }
    }
}
