// Threads: the main thread runs the server and waits for its request threads; one more waits for signals, until the process
// ends. Both signals are blocked everywhere else, before the first thread starts.

import ArgumentParser
import CLinux
import FastCGI
import Glibc

/// The program `claude-offline-upstream`.
@main
struct OfflineUpstreamCommand: ParsableCommand {
    /// What `--help` says.
    static let configuration = CommandConfiguration(
        commandName: "claude-offline-upstream",
        abstract: "A small Messages API behind nginx: canned answers, and faults on order.",
        discussion: """
            Set the CLI's ANTHROPIC_BASE_URL to the nginx location that passes requests here. Directives such as \
            [[say=hello]], [[tokens=100]] or [[error=529*1]] in a prompt choose the answer; docs/offline-upstream.md has them all.

            OFFLINE_UPSTREAM_RECORD=FILE appends each request to FILE, one JSON line each.
            """)

    /// Where to listen; nil for the socket that systemd or supervisor passes.
    @Option(help: "Listen on this Unix socket instead of one that is passed as descriptor 0 or by systemd.")
    var socket: String?

    /// How many requests run at once.
    @Option(help: "How many requests run at once.")
    var threads = 16

    /// Refuses a number of threads that makes no sense.
    func validate() throws {
        guard (1...4096).contains(threads) else { throw ValidationError("--threads must be from 1 to 4096") }
    }

    /// Serves until SIGTERM or SIGINT, then finishes what runs.
    func run() throws {
        var signals = sigset_t()
        unsafe sigemptyset(&signals)
        unsafe sigaddset(&signals, SIGTERM)
        unsafe sigaddset(&signals, SIGINT)
        unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)

        let record = try unsafe getenv("OFFLINE_UPSTREAM_RECORD").map {
            try Self.openRecord(unsafe String(cString: $0))
        }
        let listener = try socket.map { try ListeningSocket.bind(path: $0) } ?? ListeningSocket.inherited()
        let responder = MessagesResponder(record: record)
        let server = try FastCGIServer(listener: listener.descriptor, threads: threads) { responder.respond(to: $0) }
        let stop = Stop(server: server, responder: responder, listener: listener)
        try Self.startSignalThread(stop)
        try server.run()
        listener.unlinkIfBound()
    }

    private static func openRecord(_ path: String) throws -> RequestRecord {
        guard let record = RequestRecord(path: path) else {
            let reason = unsafe String(cString: strerror(errno))
            throw StartError(description: "OFFLINE_UPSTREAM_RECORD: cannot write \(path): \(reason)")
        }
        return record
    }

    /// Why the program cannot serve.
    private struct StartError: Error, CustomStringConvertible {
        let description: String
    }

    /// What a signal ends.
    private final class Stop: Sendable {
        let server: FastCGIServer
        let responder: MessagesResponder
        let listener: ListeningSocket

        init(server: FastCGIServer, responder: MessagesResponder, listener: ListeningSocket) {
            self.server = server
            self.responder = responder
            self.listener = listener
        }

        /// The first signal drains, a second one ends the process at once.
        func waitForSignals() {
            var signals = sigset_t()
            unsafe sigemptyset(&signals)
            unsafe sigaddset(&signals, SIGTERM)
            unsafe sigaddset(&signals, SIGINT)
            var number: CInt = 0
            unsafe sigwait(&signals, &number)
            responder.drain()
            server.stop()
            unsafe sigwait(&signals, &number)
            listener.unlinkIfBound()
            _exit(128 + number)
        }
    }

    private static func startSignalThread(_ stop: Stop) throws(StartError) {
        let box = unsafe Unmanaged.passRetained(stop)
        var thread = pthread_t()
        let result = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                unsafe clinux_set_thread_name("signals")
                unsafe Unmanaged<Stop>.fromOpaque(argument).takeRetainedValue().waitForSignals()
                return nil
            }, box.toOpaque())
        guard result == 0 else {
            unsafe box.release()
            throw StartError(description: "pthread_create failed: \(unsafe String(cString: strerror(result)))")
        }
        pthread_detach(thread)
    }
}
