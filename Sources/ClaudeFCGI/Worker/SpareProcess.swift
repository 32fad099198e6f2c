import Dialects
import Glibc
import ProcessControl

/// Why no spare could be had; for the log and for `claude-fcgi check`.
struct SpareFailure: Error {
    let cause: String
    /// Whether it was the machine's: the next one may do better.
    var mayPass = false
}

/// A CLI process that waits for its first request.
///
/// `@unchecked Sendable`: as ``ClaudeWorker``, it has one owner at a time.
final class SpareProcess: @unchecked Sendable {
    /// Whether it has a turn behind it that was taken back.
    let isWarm: Bool
    /// The CLI file that it runs.
    let identity: Files.Identity
    let started = ContinuousClock.now
    /// Its own memory; it does nothing that would change it.
    let kibibytes: Int
    private let defaultModel: String?
    private var process: ClaudeProcess?
    private var lines: LineBuffer

    init(
        _ process: consuming ClaudeProcess, _ lines: LineBuffer, isWarm: Bool, identity: Files.Identity,
        defaultModel: String?
    ) {
        self.isWarm = isWarm
        self.identity = identity
        self.defaultModel = defaultModel
        kibibytes = IdleMemory.own(of: process.child.pid)
        self.process = consume process
        self.lines = lines
    }

    /// Whether the process has ended, or is with a request.
    var hasExited: Bool {
        // In place: what is not copyable can't be bound.
        process?.child.hasExited ?? true
    }

    /// Hands the process to a request.
    ///
    /// - Returns: Nil when that has been done.
    func worker(for plan: LaunchPlan, model: ResolvedModel) -> ClaudeWorker? {
        guard let process = process.take() else { return nil }
        let conversation = ClaudeConversation(
            plan.request, model: model.name, resolvedModel: model.fullID,
            entry: isWarm ? .warm(defaultModel: defaultModel) : .cold)
        return ClaudeWorker(process, conversation, lines: lines)
    }

    /// Ends the process, with all that it has left.
    @available(*, noasync, message: "blocks")
    func discard() {
        guard var process = process.take() else { return }
        _ = process.child.terminate(patience: .zero, grace: .milliseconds(50))
        process.remains.remove()
    }
}

extension ClaudeLauncher {
    /// Starts a spare, and warms it where that is wanted.
    ///
    /// - Parameter isPlain: Whether it is left as it is, whatever its kind.
    @available(*, noasync, message: "blocks until the spare is ready")
    func startSpare(
        _ kind: SpareKind, isPlain: Bool = false, patience: Duration, _ starting: SpareStart
    ) throws(SpareFailure) -> SpareProcess {
        guard let path = ClaudeLocator.path(settings), let identity = Files.identity(path) else {
            throw SpareFailure(cause: "there is no CLI")
        }
        var plan = LaunchPlan(RunRequest(turns: []), roots: [])
        plan.retries = settings.retryMaxAttempts - 1
        plan.isTuned = kind == .tuned
        var process: ClaudeProcess
        do throws(APIError) {
            process = try start(plan)
        } catch {
            throw SpareFailure(cause: error.cause ?? error.message)
        }
        starting.begin(process.child.pid)
        defer { starting.end() }
        var lines = LineBuffer(limitBytes: RunPump.lineLimitBytes)
        let isWarm = kind != .started && !isPlain
        do throws(SpareFailure) {
            try ready(&process, &lines, isWarm: isWarm, retries: plan.retries, patience: patience) { starting.look() }
        } catch {
            // Its number may be another's once it has been reaped.
            starting.end()
            _ = process.child.terminate(patience: .zero, grace: .milliseconds(50))
            process.remains.remove()
            throw error
        }
        return SpareProcess(
            process, lines, isWarm: isWarm, identity: identity,
            defaultModel: environment.value("ANTHROPIC_MODEL"))
    }

    /// Waits until a process that has just been started is ready.
    ///
    /// - Parameters:
    ///   - isWarm: Whether it is warmed; else it is only up.
    ///   - look: Called several times a second meanwhile.
    func ready(
        _ process: inout ClaudeProcess, _ lines: inout LineBuffer, isWarm: Bool = true, retries: Int,
        patience: Duration, look: () -> Void = {}
    ) throws(SpareFailure) {
        let listener = isWarm ? LoopbackListener() : nil
        if isWarm, listener == nil { throw SpareFailure(cause: "no port on loopback", mayPass: true) }
        listener?.serve { WarmupUpstream.answer(to: $0) }
        defer { listener?.close() }
        var warmup = ClaudeWarmup(
            upstream: listener?.address, baseURL: environment.value("ANTHROPIC_BASE_URL"), retries: String(retries))
        let deadline = ContinuousClock.now + patience
        let isDone = ClaudeDialogue.run(
            &process.child, &lines, opening: warmup.start(), deadline: deadline, look: look
        ) { bytes, range in
            (warmup.receive(bytes, in: range), warmup.isReady)
        }
        guard isDone, warmup.isReady else {
            if let cause = warmup.failure { throw SpareFailure(cause: cause) }
            guard deadline < .now else { throw SpareFailure(cause: "it ended") }
            throw SpareFailure(cause: "it was not ready within \(Int(patience.components.seconds)) s", mayPass: true)
        }
    }
}

/// A short exchange with a CLI process where there is no client to watch.
enum ClaudeDialogue {
    private static let lookInterval = Duration.milliseconds(100)

    /// Writes and reads until the exchange is over.
    ///
    /// - Parameters:
    ///   - look: Called at least ten times a second meanwhile.
    ///   - receive: Takes a line; says what is to be written, and whether that was all.
    /// - Returns: False when the process or the time ended first, or the exchange asked for the end.
    @available(*, noasync, message: "blocks")
    static func run(
        _ child: inout ChildProcess, _ lines: inout LineBuffer, opening: [ClaudeConversation.Action],
        deadline: ContinuousClock.Instant, look: () -> Void = {},
        receive: ([UInt8], Range<Int>) -> ([ClaudeConversation.Action], isOver: Bool)
    ) -> Bool {
        guard write(opening, child, deadline) else { return false }
        while true {
            while let range = lines.nextLine() {
                let (actions, isOver) = receive(lines.bytes, range)
                guard write(actions, child, deadline) else { return false }
                if isOver { return true }
            }
            var entry = pollfd(fd: child.output, events: Int16(POLLIN), revents: 0)
            let left = deadline - .now
            guard left > .zero else { return false }
            let ready = unsafe poll(&entry, 1, min(left, lookInterval).pollMilliseconds)
            look()
            if ready == 0 || ready < 0 && errno == EINTR { continue }
            guard ready > 0 else { return false }
            guard let count = try? lines.read(from: child.output) else { return false }
            if count < 0, errno == EAGAIN || errno == EINTR { continue }
            if count <= 0 { return false }
        }
    }

    private static func write(
        _ actions: [ClaudeConversation.Action], _ child: borrowing ChildProcess, _ deadline: ContinuousClock.Instant
    ) -> Bool {
        for action in actions {
            switch action {
            case .event: break
            case .end: return false
            case .write(let bytes):
                var left = bytes[...]
                while !left.isEmpty {
                    let count = unsafe left.withUnsafeBytes {
                        unsafe Glibc.write(child.input, $0.baseAddress, $0.count)
                    }
                    if count > 0 {
                        left = left.dropFirst(count)
                    } else if errno == EAGAIN {
                        var entry = pollfd(fd: child.input, events: Int16(POLLOUT), revents: 0)
                        let time = deadline - .now
                        guard time > .zero, unsafe poll(&entry, 1, time.pollMilliseconds) != 0 else { return false }
                    } else if errno != EINTR {
                        return false
                    }
                }
            }
        }
        return true
    }
}
