import Foundation
import Testing

@testable import ProcessControl

@Suite(.serialized, .timeLimit(.minutes(1))) struct ProcessSweepTests {
    @Test func `a process that left the group is found by its environment`() throws {
        let marker = "SWEEP_TEST=\(UInt64.random(in: .min ... .max))"
        var child = try ChildProcess(
            shell(
                "setsid sh -c 'echo $$; exec sleep 300' </dev/null & wait", environment: ["PATH=/usr/bin:/bin", marker])
        )
        let stray = try #require(pid_t(readLine(child.output)))
        _ = child.terminate(patience: .zero, grace: .seconds(1))
        #expect(isRunning(stray), "it is out of the group's reach")
        #expect(ProcessSweep.killAll(withEnvironment: marker) >= 1)
        #expect(eventually { !isRunning(stray) })
        #expect(ProcessSweep.killAll(withEnvironment: marker) == 0)
    }

    /// In the middle of execve(2) a process shows no environment.
    @Test func `a process that changes its program all the time is found`() throws {
        let marker = "SWEEP_TEST=\(UInt64.random(in: .min ... .max))"
        let again = "exec sh \"$0\""
        let script = FileManager.default.temporaryDirectory.appendingPathComponent("sweep-\(UUID().uuidString)")
        try Data(again.utf8).write(to: script)
        defer { try? FileManager.default.removeItem(at: script) }
        for _ in 0..<20 {
            var child = try ChildProcess(
                shell(
                    "setsid sh -c 'echo $$; exec sh \(script.path)' </dev/null & wait",
                    environment: ["PATH=/usr/bin:/bin", marker]))
            let stray = try #require(pid_t(readLine(child.output)))
            _ = child.terminate(patience: .zero, grace: .seconds(1))
            #expect(ProcessSweep.killAll(withEnvironment: marker) >= 1)
            #expect(eventually { !isRunning(stray) })
        }
    }

    /// A machine that has no time for it, or a slow disk, can keep it there.
    @Test func `a process that shows nothing for long is found`() throws {
        let child = try ChildProcess(shell("sleep 300"))
        var waited: UInt32 = 0
        var left = [child.pid]
        let killed = ProcessSweep.killAll(
            look: {
                if waited < 120_000 { return ([], false) }
                defer { left = [] }
                return (left, true)
            }, pause: { waited += $0 })
        #expect(killed == 1)
        #expect(eventually { !isRunning(child.pid) })
    }

    @Test func `one that never shows anything is waited for a quarter of a second in all`() {
        var waited: UInt32 = 0
        #expect(ProcessSweep.killAll(look: { ([], false) }, pause: { waited += $0 }) == 0)
        #expect((200_000...260_000).contains(waited))
    }

    @Test func `where everything can be read nothing is waited for`() {
        #expect(ProcessSweep.killAll(look: { ([], true) }, pause: { _ in Issue.record("a pause") }) == 0)
    }

    @Test func `a process that was given no environment keeps no sweep waiting`() throws {
        let child = try ChildProcess(
            ChildCommand(executable: "/bin/sleep", arguments: ["300"], environment: [], directory: "/"))
        // Others on the machine change their programs just now and then.
        #expect(eventually { ProcessSweep.processes(withEnvironment: Array("NONE=1".utf8)).isAllRead })
        #expect(isRunning(child.pid))
    }

    @Test func `a sweep spares who only resembles the marker`() throws {
        let marker = "SWEEP_TEST=\(UInt64.random(in: .min ... .max))"
        let near = try ChildProcess(
            shell("echo up; exec sleep 300", environment: [marker + "0", "X\(marker)", "PATH=/bin"]))
        let argument = try ChildProcess(
            ChildCommand(
                executable: "/bin/sh", arguments: ["-c", "echo up; sleep 300; :", marker], environment: ["PATH=/bin"],
                directory: "/"))
        #expect(readLine(near.output) == "up")
        #expect(readLine(argument.output) == "up")
        #expect(ProcessSweep.killAll(withEnvironment: marker) == 0)
        #expect(isRunning(near.pid))
        #expect(isRunning(argument.pid))
    }
}
