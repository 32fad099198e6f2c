// The events of a background run, kept as the very bytes of the stream that shows them.
//
// One process appends; any number follow the file. An event is whole when its empty line is there: who reads takes whole
// events only, so what a killed writer left half written is never seen. Each has its number as `id`, from 1. The last event
// is `result` or `error`; where the writer died, who is about to fail the run appends `error`. Nothing is ever cut off: others
// read on at the place that they have come to. Behind a half an event the last one begins on a line of its own, with an `id`,
// as no line of an event's data does, and who reads lets the half go. Several may be about to fail the run: a lock on the file
// lets one after the other look, and whoever finds its end there leaves it at that.

import Dialects
import Glibc
import Sessions

/// Writes the events of one run.
final class RunEventLog {
    private let descriptor: CInt
    private var encoder: DirectStream
    /// The first failure to write; nothing is written behind it.
    private(set) var failure: FileError?

    /// Makes the file.
    init(path: String, encoder: DirectStream) throws(FileError) {
        descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError(call: "open", path: path, number: errno) }
        self.encoder = encoder
    }

    deinit { close(descriptor) }

    /// Appends what the event becomes.
    func append(_ event: RunEvent) {
        var out: [UInt8] = []
        encoder.encode(event, into: &out)
        write(out)
    }

    /// Appends the event that ends a run which failed.
    func append(failure error: APIError, requestID: String) {
        var out: [UInt8] = []
        encoder.encode(failure: error, requestID: requestID, into: &out)
        write(out)
    }

    /// The whole reply, when the run has ended with it.
    var reply: JSONValue? { encoder.reply }

    /// The conversation is not kept after all.
    func conversationIsNotKept() { encoder.conversationIsNotKept() }

    private func write(_ bytes: [UInt8]) {
        var left = bytes[...]
        while !left.isEmpty, failure == nil {
            let count = unsafe left.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                failure = FileError(call: "write", path: "event log", number: errno)
                return
            }
            left = left.dropFirst(count)
        }
    }
}

/// Reads the events of one run from behind a number on.
struct RunEventReader: ~Copyable {
    private let descriptor: CInt
    private var chunk = [UInt8](repeating: 0, count: 65536)
    /// What is not a whole event yet.
    private var rest: [UInt8] = []
    /// How much of it has been looked at.
    private var looked = 0
    private let skipped: Int
    private(set) var lastID = 0
    /// How the run ended, where the last event that was read says so.
    private(set) var end: StoredRun.End?

    /// Opens the file; nil where there is none.
    ///
    /// - Parameter last: The number of the last event that the reader has; 0 for none.
    init?(path: String, after last: Int) {
        descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        skipped = last
    }

    deinit { close(descriptor) }

    /// The next whole events, as they are sent; empty when there are none for now.
    mutating func next() -> [UInt8] {
        while true {
            let count = unsafe read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return [] }
            rest += chunk[..<count]
            let events = takeEvents()
            if !events.isEmpty { return events }
        }
    }

    private mutating func takeEvents() -> [UInt8] {
        var out: [UInt8] = []
        var start = 0
        for end in max(looked, 1)..<max(rest.count, 1) where rest[end] == 0x0A && rest[end - 1] == 0x0A && end > start {
            let event = Self.lastBegun(rest[start...end])
            lastID += 1
            self.end = Self.end(event)
            if lastID > skipped { out += event }
            start = end + 1
        }
        rest.removeFirst(start)
        looked = rest.count
        return out
    }

    /// An event without the half of another that its writer has left before it.
    private static func lastBegun(_ events: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var end = events.endIndex
        while let lineEnd = events[..<end].lastIndex(of: 0x0A) {
            let line = events[(lineEnd + 1)...]
            if line.starts(with: "id: ".utf8) { return line }
            end = lineEnd
        }
        return events
    }

    /// How the run ended, where nothing follows the event.
    private static func end(_ event: ArraySlice<UInt8>) -> StoredRun.End? {
        // The first line is its `id`.
        let lines = event.drop { $0 != 0x0A }.dropFirst()
        let isResult = lines.starts(with: "event: result\n".utf8)
        guard isResult || lines.starts(with: "event: error\n".utf8) else { return nil }
        let data = lines.drop { $0 != 0x0A }.dropFirst().trimmingPrefix("data: ".utf8).dropLast(2)
        if isResult { return .completed(result: String(decoding: data, as: UTF8.self)) }
        return .ended(by: (try? JSONParser.parse(Array(data))) ?? [:])
    }

    /// How long another process that ends the same file is waited for.
    private static let endPatience = Duration.seconds(1)

    /// Appends the event that ends a run to the file of a writer that died; once, whoever else does so.
    ///
    /// - Returns: How the stream had ended before; nil where it had not, or can't be read.
    @discardableResult
    static func end(path: String, with error: APIError) -> StoredRun.End? {
        guard var reader = RunEventReader(path: path, after: .max) else { return nil }
        let deadline = ContinuousClock.now + endPatience
        var isLocked = flock(reader.descriptor, LOCK_EX | LOCK_NB) == 0
        while !isLocked, errno == EWOULDBLOCK || errno == EINTR, ContinuousClock.now < deadline {
            usleep(1000)
            isLocked = flock(reader.descriptor, LOCK_EX | LOCK_NB) == 0
        }
        _ = reader.next()
        // Whoever has the lock writes the end.
        if reader.end != nil || !isLocked { return reader.end }
        let descriptor = unsafe open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        let lineEnd: [UInt8] = reader.rest.isEmpty || reader.rest.last == 0x0A ? [] : [0x0A]
        let event = lineEnd + DirectStream.errorEvent(error, id: reader.lastID + 1)
        _ = unsafe write(descriptor, event, event.count)
        return nil
    }
}
