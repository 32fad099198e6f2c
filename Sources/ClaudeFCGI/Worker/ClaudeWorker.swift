import Dialects
import FastCGI
import Glibc
import ProcessControl

/// One CLI process with its pipes and its conversation, over one turn or several.
///
/// `@unchecked Sendable`: it has one owner at a time, the thread that runs a turn on it, or a pool that looks at it under its
/// own lock only; it is handed over, never shared.
final class ClaudeWorker: @unchecked Sendable {
    /// TERM to KILL for a process that nobody waits for.
    private static let idleGrace = Duration.milliseconds(50)

    private(set) var process: ClaudeProcess
    private(set) var conversation: ClaudeConversation
    /// Whether the process was there before the request: then its death says nothing of the request.
    private(set) var hasWaited: Bool
    private var pump: RunPump
    private var hasTurn = false

    /// A process for its first turn.
    ///
    /// - Parameter lines: What has been read of the process's output already.
    init(
        _ process: consuming ClaudeProcess, _ conversation: ClaudeConversation, lines: LineBuffer? = nil
    ) {
        hasWaited = lines != nil
        self.process = process
        self.conversation = conversation
        pump = RunPump(lines: lines)
    }

    /// What the process wrote to standard error last.
    var errorTail: [UInt8] { pump.errorTail }

    /// Runs the request's turn: the first, or the one that continues what the process has answered.
    @available(*, noasync, message: "blocks")
    func run(
        _ turn: RunRequest, request: inout FastCGIRequest, reply: inout ReplyWriter, deadline: ContinuousClock.Instant,
        delegate: inout some PumpDelegate
    ) -> PumpEnd {
        let opening = hasTurn ? conversation.resume(turn) : conversation.start()
        hasTurn = true
        return pump.run(
            &conversation, opening: opening, child: &process.child, request: &request, reply: &reply,
            deadline: deadline, hasWaited: hasWaited, delegate: &delegate)
    }

    /// Leaves the process to wait for the conversation's next turn.
    ///
    /// - Returns: False where it can't: then it must be ended.
    func park() -> Bool {
        guard conversation.isContinuable else { return false }
        conversation.park()
        hasWaited = true
        return readParked()
    }

    /// Takes what the waiting process writes.
    ///
    /// - Returns: False when it can't go on.
    func readParked() -> Bool { pump.readParked(&conversation, &process.child) }

    /// Its output, and what shows its end, for poll(2).
    var descriptors: (output: CInt, exit: CInt) { (process.child.output, process.child.exitDescriptor) }

    /// Whether the process has ended.
    var hasExited: Bool { process.child.hasExited }

    /// Sends a signal to the process's group.
    func signalGroup(_ number: CInt) { process.child.signalGroup(number) }

    /// Ends the process and reaps it.
    @available(*, noasync, message: "blocks")
    func end(patience: Duration, grace: Duration) -> ExitStatus {
        process.child.terminate(patience: patience, grace: grace)
    }

    /// Ends a process that waits, with all that it has left.
    @available(*, noasync, message: "blocks")
    func discard() {
        _ = process.child.terminate(patience: .zero, grace: Self.idleGrace)
        process.remains.remove()
    }
}

extension ChildProcess {
    /// Whether the process has ended; it need not be reaped.
    var hasExited: Bool {
        var entry = pollfd(fd: exitDescriptor, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&entry, 1, 0) != 0
    }
}
