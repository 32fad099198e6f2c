import CLinux
import Foundation
import Synchronization
import Testing

@testable import ProcessControl

/// What a child wrote until its end, and how it ended.
private func output(
    _ script: String, environment: [String] = ["PATH=/usr/bin:/bin"], directory: String = "/", input: String = ""
) throws -> (text: String, status: ProcessControl.ExitStatus?) {
    var child = try ChildProcess(shell(script, environment: environment, directory: directory))
    if !input.isEmpty { _ = unsafe write(child.input, input, input.utf8.count) }
    child.closeInput()
    let text = readAll(child.output)
    return (text, child.waitForExit(timeout: .seconds(20)))
}

func shell(
    _ script: String, environment: [String] = ["PATH=/usr/bin:/bin"], directory: String = "/"
) -> ChildCommand {
    ChildCommand(executable: "/bin/sh", arguments: ["-c", script], environment: environment, directory: directory)
}

/// Reads a non-blocking descriptor to its end.
private func readAll(_ descriptor: CInt) -> String {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&entry, 1, 20_000) == 1 else { break }
        let count = unsafe read(descriptor, &chunk, chunk.count)
        if count <= 0 { break }
        bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// The first line that a child writes.
func readLine(_ descriptor: CInt) -> String {
    var bytes: [UInt8] = []
    var byte: UInt8 = 0
    while true {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&entry, 1, 20_000) == 1, unsafe read(descriptor, &byte, 1) == 1, byte != 0x0A else { break }
        bytes.append(byte)
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// Whether the process runs; a zombie does not.
func isRunning(_ pid: pid_t) -> Bool {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
        let state = text.split(separator: ")").last?.split(separator: " ").first
    else { return false }
    return state != "Z" && state != "X"
}

func eventually(_ condition: () -> Bool) -> Bool {
    let deadline = ContinuousClock.now + .seconds(30)
    while !condition() {
        if ContinuousClock.now > deadline { return false }
        usleep(1000)
    }
    return true
}

/// The descriptors of this process that lead to a pipe or a process: what a child could leak.
private func openPipes() -> Int {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    return names.count {
        let target = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)")) ?? ""
        return target.hasPrefix("pipe:") || target.contains("pidfd")
    }
}

/// Whether one of this process's children has ended and is not reaped.
private func hasZombie() -> Bool {
    let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
    let children = tasks.flatMap { task -> [Substring] in
        ((try? String(contentsOfFile: "/proc/self/task/\(task)/children", encoding: .utf8)) ?? "").split(separator: " ")
    }
    return children.contains { !isRunning(pid_t($0) ?? 0) }
}

/// Owns a child where a value can't.
private final class Kept {
    let child: ChildProcess
    init(child: consuming ChildProcess) { self.child = child }
}

/// One after the other: descriptors and processes of the whole test process are counted.
@Suite(.serialized, .timeLimit(.minutes(1))) struct ChildProcessTests {
    // MARK: Starting

    @Test func `a program that is missing, no program or a directory is not executable`() throws {
        let base = "/tmp/spawn-\(UInt32.random(in: .min ... .max))"
        try FileManager.default.createDirectory(atPath: base, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: base) }
        _ = FileManager.default.createFile(
            atPath: base + "/plain", contents: Data("x".utf8), attributes: [.posixPermissions: 0o644])
        _ = FileManager.default.createFile(
            atPath: base + "/text", contents: Data("x".utf8), attributes: [.posixPermissions: 0o755])
        for (path, number) in [
            (base + "/missing", ENOENT), (base + "/plain", EACCES), (base, EACCES), (base + "/text", ENOEXEC),
            (base + "/plain/x", ENOTDIR), ("/" + String(repeating: "x", count: 300), ENAMETOOLONG),
        ] {
            let error = #expect(throws: SpawnError.self) {
                _ = try ChildProcess(ChildCommand(executable: path, arguments: [], environment: [], directory: "/"))
            }
            #expect(error == .notExecutable(path: path, errno: number))
            #expect(error?.description.contains(path) == true)
        }
    }

    @Test(arguments: [("/nonexistent-directory", ENOENT), ("/etc/passwd", ENOTDIR)])
    func `a working directory that can't be entered is named`(_ directory: String, _ number: Int32) throws {
        let error = #expect(throws: SpawnError.self) { _ = try ChildProcess(shell("true", directory: directory)) }
        #expect(error == .directory(path: directory, errno: number))
    }

    @Test func `an argument that the kernel does not take is no fault of the program`() {
        let command = ChildCommand(
            executable: "/bin/true", arguments: [String(repeating: "x", count: 200_000)], environment: [],
            directory: "/")
        #expect(throws: SpawnError.resources(call: "starting /bin/true", errno: E2BIG)) {
            _ = try ChildProcess(command)
        }
    }

    @Test func `a failed start leaves no child and no descriptor`() {
        let before = openPipes()
        for _ in 0..<50 {
            _ = try? ChildProcess(ChildCommand(executable: "/missing", arguments: [], environment: [], directory: "/"))
        }
        // Other tests start processes meanwhile; a leak would be one a start at least.
        #expect(openPipes() < before + 50)
        // Theirs are reaped a moment after their ends.
        #expect(eventually { !hasZombie() })
    }

    // MARK: What a child is

    @Test func `the pipes lead to the child's standard descriptors`() throws {
        var child = try ChildProcess(shell("read line; echo \"out $line\"; echo \"err $line\" >&2"))
        let text = "hello\n"
        #expect(unsafe write(child.input, text, text.utf8.count) == text.utf8.count)
        #expect(readAll(child.output) == "out hello\n")
        #expect(readAll(child.errorOutput) == "err hello\n")
        #expect(child.waitForExit(timeout: .seconds(10)) == .exited(code: 0))
    }

    @Test func `the parent's ends are non-blocking and closed on exec`() throws {
        let child = try ChildProcess(shell("sleep 60"))
        for descriptor in [child.input, child.output, child.errorOutput] {
            #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
            #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
        }
        #expect(fcntl(child.exitDescriptor, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test func `a child has descriptors 0 to 2 and no others`() throws {
        // One without close-on-exec, as a library might leave it.
        let stray = unsafe open("/dev/null", O_RDONLY)
        defer { close(stray) }
        let child = try ChildProcess(
            ChildCommand(executable: "/bin/ls", arguments: ["/proc/self/fd"], environment: [], directory: "/"))
        // 3 is ls's own, on the directory that it lists.
        #expect(readAll(child.output) == "0\n1\n2\n3\n")
    }

    @Test func `a child leads a process group of its own`() throws {
        let child = try ChildProcess(shell("cut -d ' ' -f 1,5 /proc/$$/stat; sleep 60"))
        #expect(readLine(child.output) == "\(child.pid) \(child.pid)")
        #expect(getpgid(child.pid) == child.pid)
        #expect(getpgrp() != child.pid)
    }

    @Test func `a child has an empty signal mask and default actions`() throws {
        var blocked = sigset_t()
        var previous = sigset_t()
        unsafe sigemptyset(&blocked)
        unsafe sigaddset(&blocked, SIGTERM)
        unsafe pthread_sigmask(SIG_BLOCK, &blocked, &previous)
        signal(SIGPIPE, SIG_IGN)
        let child = try ChildProcess(
            ChildCommand(executable: "/bin/cat", arguments: ["/proc/self/status"], environment: [], directory: "/"))
        unsafe pthread_sigmask(SIG_SETMASK, &previous, nil)
        // 32 and 33 are glibc's own: it lets nobody set their actions.
        let own: UInt64 = 1 << 31 | 1 << 32
        let masks = readAll(child.output).split(separator: "\n").filter { line in
            ["SigBlk", "SigIgn", "SigCgt"].contains { line.hasPrefix($0) }
        }
        #expect(masks.count == 3)
        for line in masks {
            let mask = try #require(line.split(separator: "\t").last.flatMap { UInt64($0, radix: 16) })
            #expect(mask & ~own == 0, "\(line)")
        }
    }

    @Test func `the parent's signal mask is as before`() throws {
        var before = sigset_t()
        var after = sigset_t()
        unsafe pthread_sigmask(SIG_SETMASK, nil, &before)
        _ = try output("true")
        unsafe pthread_sigmask(SIG_SETMASK, nil, &after)
        for number in 1..<65 {
            #expect(unsafe sigismember(&before, CInt(number)) == sigismember(&after, CInt(number)))
        }
    }

    @Test(arguments: [[], ["A=1"], ["A=1", "B=", "C=x=y z\n", "É=é"]] as [[String]])
    func `the environment is exactly what is given`(_ environment: [String]) throws {
        let child = try ChildProcess(
            ChildCommand(executable: "/usr/bin/env", arguments: ["-0"], environment: environment, directory: "/"))
        #expect(readAll(child.output).split(separator: "\0").map { String($0) } == environment)
    }

    @Test func `arguments and directory are exactly what is given`() throws {
        let arguments = ["%s|%s|%s|", "", "a b", "*\"'\n$X"]
        let child = try ChildProcess(
            ChildCommand(executable: "/usr/bin/printf", arguments: arguments, environment: [], directory: "/"))
        #expect(readAll(child.output) == "|a b|*\"'\n$X|")
        #expect(try output("pwd -P", directory: "/usr/bin").text.hasSuffix("/bin\n"))
    }

    // MARK: Ending

    @Test(arguments: [
        ("exit 0", ProcessControl.ExitStatus.exited(code: 0)), ("exit 7", .exited(code: 7)),
        ("kill -9 $$", .signaled(number: 9)),
    ])
    func `the exit status tells how it ended`(_ script: String, _ expected: ProcessControl.ExitStatus) throws {
        let status = try output(script).status
        #expect(status == expected)
    }

    @Test func `exit statuses read well`() {
        #expect("\(ProcessControl.ExitStatus.exited(code: 3))" == "exit 3")
        #expect("\(ProcessControl.ExitStatus.signaled(number: 15))" == "signal 15")
    }

    @Test func `closing the input ends a reader`() throws {
        var child = try ChildProcess(
            ChildCommand(executable: "/bin/cat", arguments: [], environment: [], directory: "/"))
        #expect(child.waitForExit(timeout: .milliseconds(50)) == nil)
        child.closeInput()
        child.closeInput()
        #expect(child.input == -1)
        #expect(child.waitForExit(timeout: .seconds(10)) == .exited(code: 0))
        #expect(child.waitForExit(timeout: .zero) == .exited(code: 0))
    }

    @Test func `the exit descriptor becomes readable at the end`() throws {
        var child = try ChildProcess(
            ChildCommand(executable: "/bin/cat", arguments: [], environment: [], directory: "/"))
        var entry = pollfd(fd: child.exitDescriptor, events: Int16(POLLIN), revents: 0)
        #expect(unsafe poll(&entry, 1, 0) == 0)
        child.closeInput()
        #expect(unsafe poll(&entry, 1, 10_000) == 1)
    }

    @Test func `a patient end is the process's own`() throws {
        var child = try ChildProcess(shell("cat >/dev/null; exit 5"))
        #expect(child.terminate(patience: .seconds(10), grace: .seconds(10)) == .exited(code: 5))
    }

    @Test func `without patience TERM comes at once`() throws {
        var child = try ChildProcess(shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"))
        #expect(readLine(child.output) == "ready")
        let began = ContinuousClock.now
        #expect(child.terminate(patience: .zero, grace: .seconds(10)) == .exited(code: 9))
        #expect(ContinuousClock.now - began < .seconds(5))
    }

    @Test func `who ignores TERM gets KILL after the grace`() throws {
        var child = try ChildProcess(shell("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
        #expect(readLine(child.output) == "ready")
        let began = ContinuousClock.now
        #expect(child.terminate(patience: .zero, grace: .milliseconds(200)) == .signaled(number: SIGKILL))
        let taken = ContinuousClock.now - began
        #expect(taken >= .milliseconds(200) && taken < .seconds(5))
    }

    @Test func `a grandchild in the group that outlives the child is killed at its end`() throws {
        var child = try ChildProcess(shell("trap '' TERM HUP; sleep 300 >/dev/null 2>&1 & echo $!; exit 0"))
        let grandchild = try #require(pid_t(readLine(child.output)))
        #expect(child.waitForExit(timeout: .seconds(10)) == .exited(code: 0))
        #expect(eventually { !isRunning(grandchild) })
    }

    @Test func `leaving scope kills the group, a grandchild included`() throws {
        var grandchild: pid_t = 0
        var pid: pid_t = 0
        do {
            let child = try ChildProcess(shell("trap '' TERM; sleep 300 & echo $!; wait"))
            pid = child.pid
            grandchild = try #require(pid_t(readLine(child.output)))
            #expect(isRunning(grandchild))
        }
        #expect(!isRunning(pid))
        #expect(kill(pid, 0) != 0, "it is not reaped")
        #expect(eventually { !isRunning(grandchild) })
    }

    @Test func `signalGroup reaches everyone in the group`() throws {
        var child = try ChildProcess(shell("sleep 300 & echo $!; wait"))
        let grandchild = try #require(pid_t(readLine(child.output)))
        child.signalGroup(SIGTERM)
        #expect(child.waitForExit(timeout: .seconds(10)) == .signaled(number: SIGTERM))
        #expect(eventually { !isRunning(grandchild) })
    }

    /// What ends the CLIs of a responder that was killed: its threads end with it.
    @Test func `a child dies with the thread that started it`() throws {
        let started = Mutex<pid_t>(0)
        let release = Mutex(false)
        Thread {
            guard let child = try? ChildProcess(shell("sleep 300")) else { return }
            started.withLock { $0 = child.pid }
            _ = eventually { release.withLock { $0 } }
            // Kept for good: nothing but the thread's end may end the child.
            _ = unsafe Unmanaged.passRetained(Kept(child: child))
        }.start()
        #expect(eventually { started.withLock { $0 != 0 } })
        let pid = started.withLock { $0 }
        #expect(isRunning(pid))
        release.withLock { $0 = true }
        #expect(eventually { !isRunning(pid) })
        waitpid(pid, nil, 0)
    }

    @Test func `200 children leak neither descriptors nor zombies`() throws {
        _ = try output("true")
        let before = openPipes()
        for number in 0..<200 {
            var child = try ChildProcess(
                ChildCommand(executable: "/bin/true", arguments: [], environment: [], directory: "/"))
            if number % 2 == 0 { _ = child.waitForExit(timeout: .seconds(10)) }
            if number % 3 == 0 { child.closeInput() }
        }
        // As above: a leak would be one in every third start at least.
        #expect(eventually { openPipes() < before + 50 })
        #expect(eventually { !hasZombie() })
    }

    @Test func `children may be started from several threads at once`() throws {
        let good = Mutex(0)
        let finished = Mutex(0)
        for number in 0..<8 {
            Thread {
                for _ in 0..<20 {
                    if let result = try? output("cat; exit \(number)", input: "\(number)"), result.text == "\(number)",
                        result.status == .exited(code: Int32(number))
                    {
                        good.withLock { $0 += 1 }
                    }
                }
                finished.withLock { $0 += 1 }
            }.start()
        }
        #expect(eventually { finished.withLock { $0 == 8 } })
        #expect(good.withLock { $0 } == 160)
    }
}

@Suite struct PollMillisecondsTests {
    @Test(
        arguments: [
            (Duration.zero, 0), (.milliseconds(1), 1), (.milliseconds(1500), 1500), (.microseconds(1), 1),
            (.microseconds(1001), 2),
            (.nanoseconds(1), 1), (.seconds(3), 3000), (.seconds(-5), 0), (.milliseconds(-1), 0), (.nanoseconds(-1), 0),
            (.seconds(2_000_000), 2_000_000_000), (.seconds(9_000_000), 2_000_000_000),
            (.seconds(Int64.max / 2000), 2_000_000_000),
        ] as [(Duration, CInt)])
    func `a wait is rounded up and bounded`(_ duration: Duration, _ expected: CInt) {
        #expect(duration.pollMilliseconds == expected)
    }
}
