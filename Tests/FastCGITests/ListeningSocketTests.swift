import CLinux
import FastCGI
import Foundation
import Synchronization
import Testing

@Suite struct ListeningSocketTests {
    private static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

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
        close(try ListeningSocket.bind(path: path).descriptor)
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
        #expect(
            eventually({ result.withLock { $0 != nil } }, within: .seconds(3)), "bind waits for a place in the backlog")
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
}
