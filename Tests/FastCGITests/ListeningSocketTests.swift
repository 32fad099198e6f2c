import CLinux
import FastCGI
import Foundation
import Synchronization
import Testing

@Suite struct ListeningSocketTests {
    private static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    /// Leaves a socket's file behind that nobody listens on.
    ///
    /// A child that another test starts at this moment has the descriptor until its exec.
    private static func leaveStale(_ path: String) throws {
        close(try ListeningSocket.bind(path: path).descriptor)
        #expect(eventually { (try? FastCGIClient(path: path)) == nil })
    }

    @Test func `a bound socket is for its owner and group, non-blocking and closed on exec`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/s"
        let socket = try ListeningSocket.bind(path: path)
        defer { close(socket.descriptor) }
        var status = stat()
        #expect(unsafe stat(path, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o660)
        #expect(status.st_mode & S_IFMT == S_IFSOCK)
        #expect(fcntl(socket.descriptor, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(socket.descriptor, F_GETFD) & FD_CLOEXEC != 0)
        #expect(socket.boundPath == path)
        socket.unlinkIfBound()
        #expect(!Self.exists(path))
    }

    @Test func `a stale socket file is replaced`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/s"
        try Self.leaveStale(path)
        #expect(Self.exists(path))
        let socket = try ListeningSocket.bind(path: path)
        defer { close(socket.descriptor) }
        #expect(throws: Never.self) { try FastCGIClient(path: path) }
    }

    @Test func `a live server is left alone`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/s"
        let socket = try ListeningSocket.bind(path: path)
        defer { close(socket.descriptor) }
        #expect(throws: ListeningSocketError.inUse(path: path)) { try ListeningSocket.bind(path: path) }
        #expect(throws: Never.self) { try FastCGIClient(path: path) }
    }

    @Test func `a live server whose backlog is full is left alone`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/s"
        let socket = try ListeningSocket.bind(path: path, backlog: 0)
        defer { close(socket.descriptor) }
        let waiting = try FastCGIClient(path: path)
        // One more connection would block: the probe must not take that for a dead server, nor wait.
        let result = Mutex<ListeningSocketError?>(nil)
        Thread {
            do throws(ListeningSocketError) { _ = try ListeningSocket.bind(path: path, backlog: 0) } catch {
                result.withLock { $0 = error }
            }
        }.start()
        #expect(eventually { result.withLock { $0 != nil } }, "bind waits for a place in the backlog")
        #expect(result.withLock { $0 } == .inUse(path: path))
        #expect(Self.exists(path))
        // Frees a probe that hangs.
        close(clinux_accept(socket.descriptor))
        #expect(waiting.descriptor >= 0)
    }

    @Test(arguments: [107, 108, 200])
    func `a path that Linux can't take is refused by name`(_ length: Int) throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/" + String(repeating: "s", count: length - directory.path.utf8.count - 1)
        if length <= 107 {
            let socket = try ListeningSocket.bind(path: path)
            close(socket.descriptor)
            #expect(Self.exists(path))
        } else {
            let error = ListeningSocketError.pathTooLong(path: path, limit: 107)
            #expect(throws: error) { try ListeningSocket.bind(path: path) }
            #expect("\(error)".contains("RUN_DIR"))
        }
    }

    @Test func `a file that is no socket is not removed`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/file"
        try "precious".write(toFile: path, atomically: true, encoding: .utf8)
        #expect(throws: ListeningSocketError.self) { try ListeningSocket.bind(path: path) }
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "precious")
    }

    @Test func `a directory that is missing is an error with its path`() throws {
        let path = "/nonexistent-\(UInt32.random(in: .min ... .max))/s"
        let error = try #require(throws: ListeningSocketError.self) { try ListeningSocket.bind(path: path) }
        #expect(error == .systemCall(name: "bind", path: path, errno: ENOENT))
        #expect("\(error)".contains(path))
    }

    @Test(arguments: [0o600, 0o660, 0o777] as [mode_t])
    func `a responder's own socket is named after it and open to whom the shared one is`(_ mode: mode_t) throws {
        let directory = try TemporaryDirectory()
        let shared = try ListeningSocket.bind(path: directory.path + "/s")
        defer { close(shared.descriptor) }
        unsafe chmod(directory.path + "/s", mode)
        let own = try ListeningSocket.bindOwn(directory: directory.path, like: shared)
        defer { close(own.descriptor) }
        let path = directory.path + "/r-\(getpid()).sock"
        #expect(own.boundPath == path)
        var status = stat()
        #expect(unsafe stat(path, &status) == 0)
        #expect(status.st_mode & 0o777 == mode & 0o660)
        #expect(throws: Never.self) { try FastCGIClient(path: path) }
        own.unlinkIfBound()
        #expect(!Self.exists(path))
    }

    /// Only root may give a file to a group that it is not in.
    @Test(.enabled(if: getuid() == 0))
    func `a responder's own socket has the shared one's group, by itself or by its directory's`() throws {
        for inherits in [false, true] {
            let directory = try TemporaryDirectory()
            let shared = try ListeningSocket.bind(path: directory.path + "/s")
            defer { close(shared.descriptor) }
            #expect(unsafe chown(directory.path + "/s", uid_t.max, 33) == 0)
            if inherits {
                #expect(unsafe chown(directory.path, uid_t.max, 33) == 0)
                #expect(unsafe chmod(directory.path, 0o2755) == 0)
            }
            let own = try ListeningSocket.bindOwn(directory: directory.path, like: shared)
            defer { close(own.descriptor) }
            var status = stat()
            #expect(unsafe stat(try #require(own.boundPath), &status) == 0)
            #expect(status.st_gid == 33)
        }
    }

    @Test func `sockets of dead responders are removed, and nothing else`() throws {
        let directory = try TemporaryDirectory()
        // Above the most that Linux gives out.
        let dead = directory.path + "/r-4194399.sock"
        try Self.leaveStale(dead)
        let living = directory.path + "/r-\(getpid()).sock"
        try Self.leaveStale(living)
        let listened = directory.path + "/r-4194398.sock"
        let listener = try ListeningSocket.bind(path: listened)
        defer { close(listener.descriptor) }
        let others = ["r-4194397.sock", "r-x.sock", "r-.sock", "r--1.sock", "claude-fcgi.sock", "r-4194396.sock.txt"]
            .map { "\(directory.path)/\($0)" }
        for (index, path) in others.enumerated() {
            // The first bears the name and is no socket.
            if index == 0 {
                try "".write(toFile: path, atomically: true, encoding: .utf8)
            } else {
                try Self.leaveStale(path)
            }
        }
        ListeningSocket.removeStaleOwn(directory: directory.path)
        #expect(!Self.exists(dead))
        #expect(Self.exists(living) && Self.exists(listened))
        #expect(others.map(Self.exists).allSatisfy { $0 })
        ListeningSocket.removeStaleOwn(directory: "/nonexistent-\(UInt32.random(in: .min ... .max))")
    }
}
