import Glibc
import ProcessControl
import Testing

@Suite struct ProcessIdentityTests {
    @Test func `a process lives until it has ended, whether it is reaped or not`() throws {
        var child = try ChildProcess(
            ChildCommand(executable: "/bin/cat", arguments: [], environment: [], directory: "/"))
        let started = try #require(ProcessIdentity.startTime(of: child.pid))
        #expect(ProcessIdentity.isAlive(child.pid) && ProcessIdentity.isAlive(child.pid, startTime: started))
        child.closeInput()
        var entry = pollfd(fd: child.exitDescriptor, events: Int16(POLLIN), revents: 0)
        #expect(unsafe poll(&entry, 1, 10_000) == 1)
        #expect(ProcessIdentity.startTime(of: child.pid) == started, "it is reaped")
        #expect(!ProcessIdentity.isAlive(child.pid) && !ProcessIdentity.isAlive(child.pid, startTime: started))
        #expect(child.waitForExit(timeout: .seconds(10)) == .exited(code: 0))
        #expect(!ProcessIdentity.isAlive(child.pid) && !ProcessIdentity.isAlive(child.pid, startTime: started))
    }

    @Test func `a later process with the same number is another`() throws {
        let started = try #require(ProcessIdentity.startTime(of: getpid()))
        #expect(ProcessIdentity.isAlive(getpid(), startTime: started))
        #expect(!ProcessIdentity.isAlive(getpid(), startTime: started - 1))
    }

    @Test(arguments: [0, -1, pid_t.max]) func `a number that no process has is none's`(_ pid: pid_t) {
        #expect(!ProcessIdentity.isAlive(pid))
    }
}
