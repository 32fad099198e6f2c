// Moves bytes between one CLI process, its conversation and one client, and watches the clock, in one poll loop:
//
//   CLI stdout ──lines──> ClaudeConversation ──events──> reply ──> nginx      (stops reading while nginx is slow)
//   CLI stdin  <──bytes── ClaudeConversation
//   CLI stderr ──> the last kilobytes, for the log
//   nginx hangs up: the client left.   pidfd: the CLI ended.   deadline: the run is over.

import CLinux
import Dialects
import FastCGI
import Glibc
import ProcessControl

/// How a run's pumping ended.
enum PumpEnd: Equatable {
    /// The conversation is over; its last event has been handed on.
    case ended
    /// The client left.
    case abandoned
    /// The deadline passed.
    case timedOut
    /// A process that had waited said nothing at all; the conversation has failed.
    case silent
}

/// What a run's pump tells, and asks for heartbeats.
protocol PumpDelegate {
    /// When ``beat(_:)`` is wanted next; nil for never.
    var nextBeat: ContinuousClock.Instant? { mutating get }
    /// Takes an event; may append to the reply and finish the request.
    mutating func take(_ event: RunEvent, request: inout FastCGIRequest, reply: inout ReplyWriter)
    /// The time of ``nextBeat`` has come.
    mutating func beat(_ reply: inout ReplyWriter)
    /// Whether the caller has ended the run by another request.
    var isCancelled: Bool { get }
}

/// One run's poll loop.
struct RunPump: ~Copyable {
    /// Longer than any line the CLI writes (tool results with images are megabytes), shorter than what would hurt.
    static let lineLimitBytes = 16 << 20
    private static let errorTailBytes = 2048
    /// How long the CLI may take to report the turn after its answer is whole.
    private static let reportPatience = Duration.seconds(2)
    /// How long a process that had waited may say nothing: it answers a turn at once, long before the model does.
    private static let silencePatience = Duration.seconds(10)

    private var lines: LineBuffer
    private var input: [UInt8] = []
    private var written = 0
    private(set) var errorTail: [UInt8] = []
    private var isOutputOpen = true
    private var isErrorOpen = true
    private var isAnswered = false
    private var isSilent = false
    private var burst = DeltaBurst()

    /// - Parameter lines: What has been read of the process's output already.
    init(lines: LineBuffer? = nil) { self.lines = lines ?? LineBuffer(limitBytes: Self.lineLimitBytes) }

    /// Runs the conversation to its end, or to the end of a turn.
    ///
    /// - Parameters:
    ///   - opening: The conversation's first actions in the turn.
    ///   - request: Polled for the client's departure; nothing is polled once it is finished.
    ///   - reply: Flushed whenever nginx takes more.
    ///   - hasWaited: Whether the process was there before the request, and may hang.
    ///   - delegate: Gets each event in order.
    @available(*, noasync, message: "blocks")
    mutating func run(
        _ conversation: inout ClaudeConversation, opening: [ClaudeConversation.Action], child: inout ChildProcess,
        request: inout FastCGIRequest, reply: inout ReplyWriter, deadline: ContinuousClock.Instant, hasWaited: Bool,
        delegate: inout some PumpDelegate
    ) -> PumpEnd {
        isAnswered = false
        isSilent = hasWaited
        burst = DeltaBurst()
        let silenceEnd = ContinuousClock.now + Self.silencePatience
        perform(opening, &request, &reply, &delegate)
        var deadline = deadline
        var hasLookedOnce = false
        while !conversation.isEnded {
            if isAnswered { deadline = min(deadline, .now + Self.reportPatience) }
            writeInput(&child)
            if !reply.flush(to: request) { return .abandoned }
            if burst.isOn { usleep(DeltaBurst.pauseMicroseconds) }

            var entries = [
                pollfd(fd: isOutputOpen && !reply.isFull ? child.output : -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: isErrorOpen ? child.errorOutput : -1, events: Int16(POLLIN), revents: 0),
                // Left out while the client is slow: an ended process stays readable, and the loop would spin.
                pollfd(fd: reply.isFull ? -1 : child.exitDescriptor, events: Int16(POLLIN), revents: 0),
                pollfd(fd: written < input.count ? child.input : -1, events: Int16(POLLOUT), revents: 0),
                pollfd(
                    fd: request.descriptor, events: Int16(POLLRDHUP) | (reply.isPending ? Int16(POLLOUT) : 0),
                    revents: 0),
            ]
            let wake = min(min(deadline, delegate.nextBeat ?? deadline), isSilent ? silenceEnd : deadline)
            let left = wake - .now
            // Time is up: what has come meanwhile still counts, for this thread may have been held up. Once, for it could go on.
            let isLastLook = left <= .zero && !hasLookedOnce
            let ready =
                left > .zero || isLastLook
                ? unsafe poll(&entries, nfds_t(entries.count), max(left, .zero).pollMilliseconds) : 0
            hasLookedOnce = isLastLook
            if ready < 0 { continue }
            if ready == 0 {
                if ContinuousClock.now >= deadline { return isAnswered ? .ended : .timedOut }
                if isSilent, ContinuousClock.now >= silenceEnd {
                    perform(conversation.outputEnded(cause: "it hung"), &request, &reply, &delegate)
                    return .silent
                }
                if let beat = delegate.nextBeat, beat <= .now { delegate.beat(&reply) }
                if delegate.isCancelled { return .abandoned }
                continue
            }
            if entries[4].revents & Int16(POLLRDHUP | POLLHUP | POLLERR) != 0 { return .abandoned }
            if entries[1].revents != 0 { readErrors(child) }
            // After its end the CLI's pipes are drained without waiting: a grandchild may hold them open.
            var isDrained = entries[0].revents == 0
            if !isDrained { isDrained = !readOutput(&conversation, child, &request, &reply, &delegate) }
            if isDrained, entries[2].revents != 0, !reply.isFull, !conversation.isEnded {
                while isOutputOpen, !conversation.isEnded, readOutput(&conversation, child, &request, &reply, &delegate)
                {}
                readErrors(child)
                if !conversation.isEnded {
                    perform(conversation.outputEnded(cause: "its process ended"), &request, &reply, &delegate)
                }
            }
        }
        return .ended
    }

    /// Takes what a process writes that waits for its next turn.
    ///
    /// - Returns: False when it can't go on.
    mutating func readParked(_ conversation: inout ClaudeConversation, _ child: inout ChildProcess) -> Bool {
        while true {
            while let line = lines.nextLine() {
                for action in conversation.receiveParked(lines.bytes, in: line) {
                    switch action {
                    case .write(let bytes): input += bytes
                    case .event: break
                    case .end: return false
                    }
                }
            }
            writeInput(&child)
            guard let count = try? lines.read(from: child.output) else { return false }
            if count < 0, errno == EINTR { continue }
            if count < 0 { return errno == EAGAIN }
            if count == 0 { return false }
        }
    }

    private mutating func perform(
        _ actions: [ClaudeConversation.Action], _ request: inout FastCGIRequest, _ reply: inout ReplyWriter,
        _ delegate: inout some PumpDelegate
    ) {
        for action in actions {
            switch action {
            case .write(let bytes):
                if written == input.count {
                    input = bytes
                    written = 0
                } else {
                    input += bytes
                }
            case .event(let event):
                if case .answered = event { isAnswered = true }
                delegate.take(event, request: &request, reply: &reply)
            case .end: break
            }
        }
    }

    /// Reads once.
    ///
    /// - Returns: Whether anything came.
    private mutating func readOutput(
        _ conversation: inout ClaudeConversation, _ child: borrowing ChildProcess, _ request: inout FastCGIRequest,
        _ reply: inout ReplyWriter, _ delegate: inout some PumpDelegate
    ) -> Bool {
        do throws(LineBuffer.LineTooLong) {
            let count = try lines.read(from: child.output)
            if count == 0 { isOutputOpen = false }
            if count <= 0 { return false }
            isSilent = false
        } catch {
            let failure = conversation.lineTooLong(limitBytes: error.limitBytes)
            perform(failure, &request, &reply, &delegate)
            return true
        }
        var count = 0
        while let line = lines.nextLine() {
            count += 1
            perform(conversation.receive(lines.bytes, in: line), &request, &reply, &delegate)
        }
        burst.read(lines: count)
        return true
    }

    private mutating func readErrors(_ child: borrowing ChildProcess) {
        var chunk = [UInt8](repeating: 0, count: 4 * Self.errorTailBytes)
        let count = unsafe read(child.errorOutput, &chunk, chunk.count)
        if count == 0 { isErrorOpen = false }
        if count <= 0 { return }
        errorTail += chunk[..<count].suffix(Self.errorTailBytes)
        if errorTail.count > Self.errorTailBytes { errorTail.removeFirst(errorTail.count - Self.errorTailBytes) }
    }

    private mutating func writeInput(_ child: inout ChildProcess) {
        while written < input.count {
            let count = unsafe input[written...].withUnsafeBytes { unsafe write(child.input, $0.baseAddress, $0.count) }
            if count < 0 {
                // EPIPE: the CLI's end shows on its output and its pidfd.
                if errno == EPIPE { written = input.count }
                break
            }
            written += count
        }
        if written == input.count {
            input = []
            written = 0
        }
    }
}

extension LineBuffer {
    /// Reads once.
    ///
    /// - Returns: As read(2); `errno` is its.
    mutating func read(from descriptor: CInt) throws(LineTooLong) -> Int {
        unsafe try append { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
    }
}
