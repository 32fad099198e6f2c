import CLinux
import Glibc

/// Why a program could not be started.
public enum SpawnError: Error, Sendable, Equatable, CustomStringConvertible {
    /// There is no such file, or it may not be run.
    case notExecutable(path: String, errno: Int32)
    /// The working directory does not exist or may not be entered.
    case directory(path: String, errno: Int32)
    /// The kernel has no process, descriptor or memory left.
    case resources(call: String, errno: Int32)

    /// What happened, with the system's words.
    public var description: String {
        switch self {
        case .notExecutable(let path, let number): "\(path) can't be run: \(Self.words(number))"
        case .directory(let path, let number): "the directory \(path) can't be entered: \(Self.words(number))"
        case .resources(let call, let number): "\(call) failed: \(Self.words(number))"
        }
    }

    private static func words(_ number: Int32) -> String { unsafe String(cString: strerror(number)) }
}

/// How a process ended.
public enum ExitStatus: Sendable, Equatable, CustomStringConvertible {
    /// It returned or called exit.
    case exited(code: Int32)
    /// A signal ended it.
    case signaled(number: Int32)

    init(waitStatus: CInt) {
        self =
            clinux_has_exited(waitStatus) != 0
            ? .exited(code: clinux_exit_code(waitStatus)) : .signaled(number: clinux_end_signal(waitStatus))
    }

    /// `exit 0`, `signal 9`.
    public var description: String {
        switch self {
        case .exited(let code): "exit \(code)"
        case .signaled(let number): "signal \(number)"
        }
    }
}

/// What to start.
public struct ChildCommand: Sendable {
    /// The program's path; `PATH` is not searched.
    public var executable: String
    /// Arguments after the program's name.
    public var arguments: [String]
    /// The whole environment, as `NAME=value`.
    public var environment: [String]
    /// The directory it starts in.
    public var directory: String
    /// The same directory, opened by the caller, who saw then where it is; -1 to go by the path.
    public var directoryDescriptor: CInt = -1

    /// A command.
    public init(executable: String, arguments: [String], environment: [String], directory: String) {
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
    }
}

/// A program started with three pipes, leader of its own process group, ended and reaped when it leaves scope.
///
/// The kernel ends it (SIGKILL) when the thread that started it ends, so a responder that is killed leaves none behind.
/// Start it from a permanent thread.
public struct ChildProcess: ~Copyable {
    /// The process, and its group.
    public let pid: pid_t
    /// Readable when the process has ended.
    public let exitDescriptor: CInt
    /// The parent's end of the child's descriptor 0, non-blocking; -1 once closed.
    public private(set) var input: CInt
    /// The parent's end of the child's descriptor 1, non-blocking.
    public let output: CInt
    /// The parent's end of the child's descriptor 2, non-blocking.
    public let errorOutput: CInt
    private var status: ExitStatus?

    /// Starts the program.
    public init(_ command: ChildCommand) throws(SpawnError) {
        var pipes: [CInt] = []
        func closeAll() { for descriptor in pipes { close(descriptor) } }
        for _ in 0..<3 {
            var pair: [CInt] = [-1, -1]
            guard unsafe pipe2(&pair, O_CLOEXEC) == 0 else {
                let number = errno
                closeAll()
                throw .resources(call: "pipe2", errno: number)
            }
            pipes += pair
        }
        var step: CChar = 0
        let pid = Self.spawn(command, pipes[0], pipes[3], pipes[5], &step)
        guard pid > 0 else {
            closeAll()
            throw Self.error(command, step: step, number: -pid)
        }
        let exitDescriptor = clinux_pidfd_open(pid)
        let number = errno
        for descriptor in [pipes[0], pipes[3], pipes[5]] { close(descriptor) }
        for descriptor in [pipes[1], pipes[2], pipes[4]] { clinux_set_nonblocking(descriptor) }
        guard exitDescriptor >= 0 else {
            for descriptor in [pipes[1], pipes[2], pipes[4]] { close(descriptor) }
            kill(-pid, SIGKILL)
            waitpid(pid, nil, 0)
            throw .resources(call: "pidfd_open", errno: number)
        }
        self.pid = pid
        self.exitDescriptor = exitDescriptor
        input = pipes[1]
        output = pipes[2]
        errorOutput = pipes[4]
    }

    deinit {
        // Never returned from before the group is gone: a place must not be given away while its process runs.
        if status == nil {
            kill(-pid, SIGKILL)
            var waitStatus: CInt = 0
            while unsafe waitpid(pid, &waitStatus, 0) < 0, errno == EINTR {}
        }
        kill(-pid, SIGKILL)
        for descriptor in [input, output, errorOutput, exitDescriptor] where descriptor >= 0 { close(descriptor) }
    }

    /// Closes the child's standard input: the CLI ends after its turn.
    public mutating func closeInput() {
        if input >= 0 { close(input) }
        input = -1
    }

    /// Sends a signal to the whole group.
    public func signalGroup(_ number: CInt) {
        kill(-pid, number)
    }

    /// Waits for the end and reaps; the group's leftovers are killed.
    ///
    /// - Returns: How it ended, or nil when it still runs after `timeout`.
    @available(*, noasync, message: "blocks")
    public mutating func waitForExit(timeout: Duration) -> ExitStatus? {
        if let status { return status }
        var entry = pollfd(fd: exitDescriptor, events: Int16(POLLIN), revents: 0)
        let deadline = ContinuousClock.now + timeout
        while true {
            let left = max(.zero, deadline - .now)
            let result = unsafe poll(&entry, 1, left.pollMilliseconds)
            if result > 0 { break }
            if result == 0 { return nil }
        }
        var waitStatus: CInt = 0
        while unsafe waitpid(pid, &waitStatus, 0) < 0 {
            guard errno == EINTR else { break }
        }
        kill(-pid, SIGKILL)
        let ended = ExitStatus(waitStatus: waitStatus)
        status = ended
        return ended
    }

    /// Ends the process step by step: standard input closed, TERM to the group after `patience`, KILL after `grace`.
    @available(*, noasync, message: "blocks")
    public mutating func terminate(patience: Duration, grace: Duration) -> ExitStatus {
        closeInput()
        if patience > .zero, let status = waitForExit(timeout: patience) { return status }
        signalGroup(SIGTERM)
        if let status = waitForExit(timeout: grace) { return status }
        signalGroup(SIGKILL)
        // A killed process ends as soon as the kernel lets it; uninterruptible sleep is the only delay.
        while true {
            if let status = waitForExit(timeout: .seconds(10)) { return status }
        }
    }

    private static func spawn(
        _ command: ChildCommand, _ input: CInt, _ output: CInt, _ errorOutput: CInt, _ step: inout CChar
    ) -> pid_t {
        var arguments = unsafe ([command.executable] + command.arguments).map { unsafe strdup($0) }
        unsafe arguments.append(nil)
        var environment = unsafe command.environment.map { unsafe strdup($0) }
        unsafe environment.append(nil)
        defer { unsafe (arguments + environment).forEach { unsafe free($0) } }
        return unsafe command.executable.withCString { path in
            unsafe command.directory.withCString { directory in
                unsafe arguments.withUnsafeBufferPointer { argv in
                    unsafe environment.withUnsafeBufferPointer { envp in
                        var request = unsafe clinux_spawn_request(
                            path: path, argv: argv.baseAddress, envp: envp.baseAddress, directory: directory,
                            directory_descriptor: command.directoryDescriptor, standard_input: input,
                            standard_output: output, standard_error: errorOutput)
                        return unsafe clinux_spawn(&request, &step)
                    }
                }
            }
        }
    }

    private static func error(_ command: ChildCommand, step: CChar, number: Int32) -> SpawnError {
        switch UInt8(bitPattern: step) {
        case UInt8(ascii: "d"): .directory(path: command.directory, errno: number)
        case UInt8(ascii: "x") where [ENOENT, EACCES, ENOEXEC, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG].contains(number):
            .notExecutable(path: command.executable, errno: number)
        default: .resources(call: "starting \(command.executable)", errno: number)
        }
    }
}

extension Duration {
    /// For poll(2): rounded up, so that a wait never ends before its time; at most 24 days.
    public var pollMilliseconds: CInt {
        let (seconds, attoseconds) = components
        let milliseconds = seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
        return CInt(clamping: min(max(milliseconds, 0), 2_000_000_000))
    }
}
