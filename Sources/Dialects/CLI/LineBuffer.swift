/// Cuts a stream of bytes into lines, wherever the reads happen to split it.
public struct LineBuffer: Sendable {
    /// A line longer than the limit.
    public struct LineTooLong: Error, Sendable, Equatable {
        /// The limit.
        public var limitBytes: Int
    }

    /// What has been read and not been taken, and consumed lines in front until the next ``append(_:)``.
    public private(set) var bytes: [UInt8] = []
    private let limitBytes: Int
    private var consumed = 0
    private var scanned = 0

    /// An empty buffer.
    public init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// Adds what was read.
    ///
    /// - Throws: ``LineTooLong`` when a line without end has outgrown the limit; the buffer is of no more use then.
    public mutating func append(_ chunk: some Collection<UInt8>) throws(LineTooLong) {
        if consumed > 0 {
            bytes.removeFirst(consumed)
            scanned -= consumed
            consumed = 0
        }
        bytes.append(contentsOf: chunk)
        if bytes.count > limitBytes, !bytes[scanned...].contains(0x0A) { throw LineTooLong(limitBytes: limitBytes) }
    }

    /// The next whole line's place in ``bytes``, without its newline; nil when there is none yet.
    public mutating func nextLine() -> Range<Int>? {
        guard let end = bytes[scanned...].firstIndex(of: 0x0A) else {
            scanned = bytes.count
            return nil
        }
        let line = consumed..<end
        consumed = end + 1
        scanned = consumed
        return line
    }
}
