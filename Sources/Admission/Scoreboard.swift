import CLinux
import Glibc

/// What the segment shows: every request that runs or waits, every responder, and counters that never go down.
public struct Scoreboard: Sendable, Equatable {
    /// A request that runs or waits.
    public struct Request: Sendable, Equatable {
        /// Its client's name.
        public var client: String
        /// The route's number, as the program counts them.
        public var route: Int
        /// Its model; empty for the default.
        public var model: String
        /// What its thread does; nil for a stage that this version does not know.
        public var stage: RequestStage?
        /// Since it came.
        public var age: Duration
        /// Its CLI process; nil before it is started.
        public var cliPID: Int32?
        /// Its responder's process.
        public var responderPID: Int32
        /// The number of the conversation that it goes on with; 0 for none.
        public var session: UInt64
    }

    /// A responder process.
    public struct Responder: Sendable, Equatable {
        /// The process.
        public var pid: Int32
        /// Its request threads.
        public var threads: Int
        /// Since it started.
        public var age: Duration
        /// Requests it has answered.
        public var requests: Int
        /// CLI processes that it has ready for requests to come.
        public var spares: Int
        /// Their own memory, without what they share, in KiB.
        public var spareKibibytes: Int
        /// Conversations whose CLI process it keeps.
        public var live: Int
        /// Their own memory in KiB, not older than a second.
        public var liveKibibytes: Int
    }

    /// Requests in order of arrival.
    public var requests: [Request]
    /// Live responders.
    public var responders: [Responder]
    /// The limits in force.
    public var limits: AdmissionGate.Limits
    /// Counters.
    public var totals: Totals

    /// How many run and wait.
    public var counts: AdmissionGate.Counts {
        let waiting = requests.count { $0.stage == .waiting }
        return .init(running: requests.count - waiting, waiting: waiting)
    }

    /// Counters over all responders, dead ones included, since the segment was made.
    public struct Totals: Sendable, Equatable {
        /// Requests that got a place.
        public var admitted = 0
        /// Requests refused because the queue was full.
        public var refused = 0
        /// Requests whose time in the queue ran out.
        public var timedOut = 0
        /// Requests whose client left while they waited.
        public var abandoned = 0
        /// Places freed after a responder's death.
        public var reaped = 0
        /// Attempts after a first one that failed.
        public var retries = 0
        /// Heartbeats sent.
        public var heartbeats = 0
        /// Tokens of prompts.
        public var inputTokens = 0
        /// Tokens of answers.
        public var outputTokens = 0
        /// Tokens of prompts that were read from the cache.
        public var cacheReadTokens = 0
        /// What the CLI said its runs cost, in millionths of a US dollar.
        public var costMicrodollars = 0
        /// Finished requests: row = route, column = status, as the program numbers them.
        public var requests: [[Int]] = []
        /// Distributions of queue wait, first byte and total time.
        public var histograms: [Histogram] = []
    }

    /// A distribution over fixed bounds.
    public struct Histogram: Sendable, Equatable {
        /// Upper bounds in seconds.
        public static let bounds: [Double] = [
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800,
        ]

        /// Observations in each bucket, not cumulative; the last one is beyond all bounds.
        public var buckets: [Int]
        /// The sum of all observations, in seconds.
        public var sum: Double
    }
}

/// What is measured of each request.
public enum RequestTiming: Int, Sendable, CaseIterable {
    /// From its arrival to its place.
    case queueWait
    /// From its arrival to the first piece of the answer.
    case firstByte
    /// From its arrival to its end.
    case total
}

/// One finished request, for the counters.
public struct RequestRecord: Sendable {
    /// The route's number.
    public var route: Int
    /// The status's number, as the program counts them.
    public var status: Int
    /// Times that were taken.
    public var timings: [(RequestTiming, Duration)]
    /// Tokens of the prompt.
    public var inputTokens: Int
    /// Tokens of the answer.
    public var outputTokens: Int
    /// Tokens of the prompt that were read from the cache.
    public var cacheReadTokens: Int
    /// The CLI's figure for its price, in US dollars.
    public var costUSD: Double

    /// A record.
    public init(
        route: Int, status: Int, timings: [(RequestTiming, Duration)], inputTokens: Int, outputTokens: Int,
        cacheReadTokens: Int, costUSD: Double
    ) {
        self.route = route
        self.status = status
        self.timings = timings
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
        self.cacheReadTokens = cacheReadTokens
        self.costUSD = costUSD
    }
}

extension AdmissionGate {
    /// Counts a finished request.
    public func count(_ record: RequestRecord) {
        let metrics = unsafe segment.metrics
        if segment.owner < UInt32(ADMISSION_OWNERS) {
            unsafe clinux_add(&segment.owners[Int(segment.owner)].requests, 1)
        }
        let cell =
            min(max(record.route, 0), Int(METRIC_ROUTES) - 1) * Int(METRIC_STATUSES)
            + min(max(record.status, 0), Int(METRIC_STATUSES) - 1)
        unsafe withUnsafeMutablePointer(to: &metrics.pointee.requests.0) { unsafe clinux_add($0 + cell, 1) }
        for (timing, duration) in record.timings {
            let (seconds, attoseconds) = duration.components
            let value = Double(seconds) + Double(attoseconds) / 1e18
            let bucket = Scoreboard.Histogram.bounds.firstIndex { value <= $0 } ?? Int(METRIC_BUCKETS) - 1
            let row = timing.rawValue * Int(METRIC_BUCKETS)
            unsafe withUnsafeMutablePointer(to: &metrics.pointee.buckets.0) { unsafe clinux_add($0 + row + bucket, 1) }
            unsafe withUnsafeMutablePointer(to: &metrics.pointee.sums.0) {
                unsafe clinux_add($0 + timing.rawValue, UInt64(max(0, value) * 1e6))
            }
        }
        unsafe clinux_add(&metrics.pointee.input_tokens, UInt64(clamping: record.inputTokens))
        unsafe clinux_add(&metrics.pointee.output_tokens, UInt64(clamping: record.outputTokens))
        unsafe clinux_add(&metrics.pointee.cache_read_tokens, UInt64(clamping: record.cacheReadTokens))
        if record.costUSD.isFinite, record.costUSD > 0, record.costUSD < 1e6 {
            unsafe clinux_add(&metrics.pointee.cost_microdollars, UInt64(record.costUSD * 1e6))
        }
    }

    /// Counts further attempts.
    public func countRetries(_ count: Int) {
        unsafe clinux_add(&segment.metrics.pointee.retries, UInt64(clamping: count))
    }

    /// Counts a heartbeat.
    public func countHeartbeat() { unsafe clinux_add(&segment.metrics.pointee.heartbeats, 1) }

    /// What the segment shows now.
    public func scoreboard() -> Scoreboard { segment.scoreboard() }

    /// What a segment shows, for a process that takes no part in it.
    ///
    /// - Returns: Nil when there is no segment at `path`.
    public static func scoreboard(path: String) throws(AdmissionSegmentError) -> Scoreboard? {
        guard unsafe access(path, F_OK) == 0 else { return nil }
        return try AdmissionSegment(path: path, threads: nil).scoreboard()
    }
}

extension AdmissionSegment {
    fileprivate func scoreboard() -> Scoreboard {
        let now = clinux_monotonic()
        func age(_ since: UInt64) -> Duration { .nanoseconds(Int64(clamping: now >= since ? now &- since : 0)) }
        return withLock { segment in
            var requests: [(ticket: UInt64, request: Scoreboard.Request)] = []
            for index in 0..<min(Int(unsafe segment.header.pointee.high_water), Int(ADMISSION_ENTRIES))
            where unsafe segment.entries[index].state != UInt32(ADMISSION_FREE) {
                let entry = unsafe segment.entries[index]
                let stage = entry.state == UInt32(ADMISSION_WAITING) ? .waiting : RequestStage(rawValue: entry.stage)
                let owner = Int(min(entry.owner, UInt32(ADMISSION_OWNERS) - 1))
                requests.append(
                    (
                        entry.ticket,
                        Scoreboard.Request(
                            client: text(entry.client), route: Int(entry.route), model: text(entry.model),
                            stage: stage == .waiting && entry.state == UInt32(ADMISSION_RUNNING) ? .starting : stage,
                            age: age(entry.enqueued), cliPID: entry.group == 0 ? nil : entry.group,
                            responderPID: unsafe segment.owners[owner].pid, session: entry.session)
                    ))
            }
            requests.sort { $0.ticket < $1.ticket }
            var responders: [Scoreboard.Responder] = []
            for index in 0..<Int(ADMISSION_OWNERS) where unsafe segment.owners[index].pid != 0 {
                guard segment.isAlive(UInt32(index)) else { continue }
                let owner = unsafe segment.owners[index]
                responders.append(
                    .init(
                        pid: owner.pid, threads: Int(owner.threads), age: age(owner.started),
                        requests: Int(clamping: owner.requests), spares: Int(clamping: owner.spares),
                        spareKibibytes: Int(owner.spare_kib), live: segment.liveCount(ofOwner: UInt32(index)),
                        liveKibibytes: Int(owner.live_kib)))
            }
            return Scoreboard(
                requests: requests.map(\.request), responders: responders,
                limits: unsafe .init(
                    concurrency: Int(segment.header.pointee.concurrency),
                    queueLimit: Int(segment.header.pointee.queue_limit)),
                totals: segment.totals())
        }
    }

    private func totals() -> Scoreboard.Totals {
        let metrics = unsafe metrics.pointee
        func number(_ word: UInt64) -> Int { Int(clamping: word) }
        var totals = Scoreboard.Totals(
            admitted: number(metrics.admitted), refused: number(metrics.refused), timedOut: number(metrics.timed_out),
            abandoned: number(metrics.abandoned), reaped: number(metrics.reaped), retries: number(metrics.retries),
            heartbeats: number(metrics.heartbeats), inputTokens: number(metrics.input_tokens),
            outputTokens: number(metrics.output_tokens), cacheReadTokens: number(metrics.cache_read_tokens),
            costMicrodollars: number(metrics.cost_microdollars))
        let requests = words(metrics.requests)
        for route in 0..<Int(METRIC_ROUTES) {
            totals.requests.append(Array(requests[(route * Int(METRIC_STATUSES))...].prefix(Int(METRIC_STATUSES))))
        }
        let buckets = words(metrics.buckets)
        let sums = words(metrics.sums)
        for timing in RequestTiming.allCases {
            let row = buckets[(timing.rawValue * Int(METRIC_BUCKETS))...].prefix(Int(METRIC_BUCKETS))
            totals.histograms.append(
                .init(
                    buckets: Array(row.prefix(Scoreboard.Histogram.bounds.count)) + [row.last ?? 0],
                    sum: Double(sums[timing.rawValue]) / 1e6))
        }
        return totals
    }

    /// A C array of words.
    private func words<Field>(_ field: Field) -> [Int] {
        unsafe withUnsafeBytes(of: field) { bytes in
            unsafe bytes.bindMemory(to: UInt64.self).map { Int(clamping: $0) }
        }
    }

    /// A C array of characters, to its first zero.
    private func text<Field>(_ field: Field) -> String {
        unsafe withUnsafeBytes(of: field) { bytes in unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
