import FastCGI
import Foundation
import Synchronization
import Testing

/// A directory that is gone with its owner.
///
/// Its path is short: a socket's must fit 107 bytes.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        path = "/tmp/fcgi-\(UInt32.random(in: .min ... .max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Waits until the condition holds.
func eventually(_ condition: () -> Bool, within patience: Duration = .seconds(30)) -> Bool {
    let deadline = ContinuousClock.now + patience
    while !condition() {
        if ContinuousClock.now > deadline { return false }
        usleep(1000)
    }
    return true
}

/// A real server on a Unix socket of its own, on threads of its own.
final class TestServer: Sendable {
    let path: String
    private let directory: TemporaryDirectory
    private let listening: ListeningSocket
    /// A second one, which is the server's own.
    let own: ListeningSocket?
    private let server: FastCGIServer
    private let ended = Mutex(false)

    init(
        threads: Int = 2, hasOwn: Bool = false, peerTimeout: Duration = .seconds(5),
        handler: @escaping FastCGIServer.Handler
    ) throws {
        directory = try TemporaryDirectory()
        path = directory.path + "/s"
        listening = try ListeningSocket.bind(path: path)
        own = hasOwn ? try ListeningSocket.bindOwn(directory: directory.path, like: listening) : nil
        server = try FastCGIServer(
            listener: listening.descriptor, own: own, threads: threads, peerTimeout: peerTimeout, handler: handler)
        let thread = Thread { [self] in
            try? server.run()
            ended.withLock { $0 = true }
        }
        thread.start()
    }

    var hasEnded: Bool { ended.withLock { $0 } }

    func stop() { server.stop() }

    /// Ends the server; every test does so last.
    func end() {
        stop()
        #expect(eventually { hasEnded }, "run() did not return")
        close(listening.descriptor)
        if let own { close(own.descriptor) }
    }

    /// Sends a request and reads the reply.
    func ask(_ bytes: [UInt8]) throws -> FastCGIClient.Reply {
        let client = try FastCGIClient(path: path)
        client.send(bytes)
        return client.receive()
    }
}

extension FastCGIRequest {
    /// Writes a plain reply in records as the product does.
    func reply(_ text: String) {
        var rest = Array(("Status: 200 OK\r\n\r\n" + text).utf8)[...]
        while !rest.isEmpty {
            guard write(rest.prefix(Self.maximumWriteBytes)) else { return }
            rest = rest.dropFirst(Self.maximumWriteBytes)
        }
    }
}
