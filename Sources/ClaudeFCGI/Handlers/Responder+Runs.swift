import Dialects
import FastCGI
import Glibc
import Sessions
import Synchronization

extension Responder {
    /// `GET /api/runs/ID`.
    func answerRun(_ id: String, _ client: Client, _ reply: inout ReplyWriter) throws(APIError) {
        reply.reply(status: 200, json: try Self.json(try runs.run(id, owner: client.name)))
    }

    /// `POST /api/runs/ID/cancel`.
    func cancelRun(_ id: String, _ client: Client, _ reply: inout ReplyWriter) throws(APIError) {
        _ = try runs.run(id, owner: client.name)
        _ = try runs.use { store throws(SessionStoreError) in try store.requestCancel(id: id, owner: client.name) }
        // Whoever has the run looks several times a second; its end is what the caller wants to see.
        let deadline = ContinuousClock.now + .seconds(3)
        var run = try runs.run(id, owner: client.name)
        while !run.state.isTerminal, ContinuousClock.now < deadline {
            usleep(20_000)
            run = try runs.run(id, owner: client.name)
        }
        reply.reply(status: 200, json: try Self.json(run))
    }

    private static func json(_ run: StoredRun) throws(APIError) -> JSONValue {
        [
            "id": .string(run.id), "sessionId": run.sessionID.map { .string($0) } ?? .null,
            "state": .string(run.state.rawValue), "createdAt": .string(Timestamp.text(run.created)),
            "progress": try StateStore.json(run.progress),
            "result": try run.result.map { text throws(APIError) in try StateStore.json(text) } ?? .null,
            "error": try run.error.map { text throws(APIError) in try StateStore.json(text) } ?? .null,
        ]
    }

    /// `GET /api/runs/ID/events`: from behind an event on, and on with a run that goes on.
    @inline(never) func followRun(
        _ id: String, _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter,
        _ log: inout RequestLog
    ) throws(APIError) {
        _ = try runs.run(id, owner: client.name)
        let after = try Self.place(Self.query(request).last { $0.name == "after" }?.value, "after")
        let header = try Self.place(request.parameter("HTTP_LAST_EVENT_ID"), "Last-Event-ID")
        let last = after ?? header ?? 0
        guard var reader = RunEventReader(path: runs.eventsPath(id), after: last) else { throw StoredRuns.missing }
        // Who follows holds a thread without a place.
        guard followers.begin() else {
            throw APIError(
                .unavailable, "As many clients follow runs as may. Try again later, or ask GET /api/runs/ID.",
                retryAfterSeconds: 5)
        }
        defer { followers.end() }
        log.isStream = true
        reply.begin(
            status: 200, header: [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")])
        var beat = ContinuousClock.now + settings.heartbeatAfter
        var look = ContinuousClock.now
        var endIsDue: ContinuousClock.Instant?
        while true {
            // The row could not be written yet, and nothing follows in the stream.
            var isOver = endIsDue.map { $0 <= .now } ?? false
            if look <= .now {
                // Before the file is read: what was written before the run ended is read then.
                isOver = isOver || ((try? runs.run(id, owner: client.name))?.state.isTerminal) ?? true
                look = .now + Self.followInterval
            }
            let events = reply.isFull ? [] : reader.next()
            if reader.end != nil, endIsDue == nil { endIsDue = .now + Self.rowPatience }
            if !events.isEmpty {
                reply.append(events)
                beat = .now + settings.heartbeatAfter
                look = isOver ? .now : look
            } else if isOver, !reply.isFull {
                if reader.end == nil { reply.append(Self.missingEnd) }
                return
            } else if beat <= .now {
                var out: [UInt8] = []
                Dialect.direct.appendHeartbeat(to: &out)
                reply.append(out)
                beat = .now + settings.heartbeatAfter
            }
            guard reply.flush(to: request) else {
                log.isAbandoned = true
                return
            }
            var entry = pollfd(
                fd: request.descriptor, events: Int16(POLLRDHUP) | (reply.isPending ? Int16(POLLOUT) : 0), revents: 0)
            if unsafe poll(&entry, 1, events.isEmpty ? 20 : 0) > 0, entry.revents & Int16(POLLRDHUP | POLLHUP) != 0 {
                log.isAbandoned = true
                return
            }
        }
    }

    /// An event's number; a wrong one is said even where the other place counts.
    private static func place(_ value: String?, _ name: String) throws(APIError) -> Int? {
        guard let value else { return nil }
        guard let number = Int(value), number >= 0 else {
            throw .invalid(name, "`\(name)` must be the `id` of an event, a whole number.")
        }
        return number
    }

    /// The event for a stream whose end could not be written, on a full disk, say: it has no number, and is in no file.
    private static var missingEnd: [UInt8] {
        DirectStream.errorEvent(
            APIError(.internal, "The rest of the run's events is lost. `GET /api/runs/ID` says how it ended."), id: nil)
    }

    /// How long a stream that has its end stays open for the run's row: who asks for the run then finds that it is over.
    private static var rowPatience: Duration { .seconds(3) }

    /// Between two looks at whether the run still goes on.
    private static var followInterval: Duration { .milliseconds(200) }
}

/// How many clients follow runs, bounded: each holds a thread for long.
final class Followers: Sendable {
    private let limit: Int
    private let count = Mutex(0)

    init(limit: Int) { self.limit = limit }

    /// Takes a place; false when all are taken.
    func begin() -> Bool {
        count.withLock { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
    }

    /// Gives it back.
    func end() { count.withLock { $0 -= 1 } }
}
