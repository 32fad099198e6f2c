import FastCGI
import Foundation
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct FastCGIServerTests {
    /// Replies with what it was sent: each parameter asked for, then the body's size and sum.
    private static func echo(_ names: [String] = []) -> FastCGIServer.Handler {
        { request in
            let values = names.map { "\($0)=\(request.parameter($0) ?? "-")\n" }.joined()
            do throws(RequestBodyError) {
                let body = try request.readBody(limitBytes: 8 << 20)
                request.reply(values + summary(body))
            } catch {
                request.reply("\(error)")
            }
        }
    }

    private static func summary(_ body: [UInt8]) -> String {
        "\(body.count) \(body.reduce(UInt64(7)) { ($0 &* 31) &+ UInt64($1) })"
    }

    private static func body(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
    }

    private static let ended: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0]

    @Test(arguments: [0, 1, 7, 8191, 8192, 65535, 65536, 65537, 131_072, 1 << 20])
    func `a body arrives whole, whatever its size`(_ size: Int) throws {
        let server = try TestServer(handler: Self.echo())
        defer { server.end() }
        let body = Self.body(size)
        for recordBytes in [65535, 8192, 1000] {
            let reply = try server.ask(FastCGIClient.request(body: body, recordBytes: recordBytes))
            #expect(reply.text == "Status: 200 OK\r\n\r\n" + Self.summary(body))
            #expect(reply.end == Self.ended)
        }
    }

    @Test func `parameters of every length arrive`() throws {
        let lengths = [0, 1, 127, 128, 255, 256, 8000, 65535, 70000]
        let server = try TestServer(handler: Self.echo(lengths.map { "P\($0)" } + ["MISSING"]))
        defer { server.end() }
        let parameters = lengths.map { ("P\($0)", String(repeating: "é", count: $0)) }
        let text = try server.ask(FastCGIClient.request(parameters)).text
        for (name, value) in parameters { #expect(text.contains("\(name)=\(value)\n"), "\(name)") }
        #expect(text.contains("MISSING=-\n"))
    }

    @Test func `a parameter that is no UTF-8 counts as missing`() throws {
        let server = try TestServer(handler: Self.echo(["BAD", "GOOD"]))
        defer { server.end() }
        let pairs = [3, 2] + Array("BAD".utf8) + [0xFF, 0xFE] + FastCGIClient.pairs([("GOOD", "x")])
        let bytes =
            FastCGIClient.begin() + FastCGIClient.stream(.params, pairs) + FastCGIClient.stream(.stdin, [])
        #expect(try server.ask(bytes).text.contains("BAD=-\nGOOD=x\n"))
    }

    @Test func `a request may come a few bytes at a time`() throws {
        let server = try TestServer(handler: Self.echo(["NAME"]))
        defer { server.end() }
        let client = try FastCGIClient(path: server.path)
        for byte in FastCGIClient.request([("NAME", "value")], body: Self.body(20)) {
            client.send([byte])
            usleep(100)
        }
        let reply = client.receive()
        #expect(reply.text.contains("NAME=value\n"))
        #expect(reply.text.hasSuffix(Self.summary(Self.body(20))))
    }

    @Test func `padding is skipped`() throws {
        let server = try TestServer(handler: Self.echo())
        defer { server.end() }
        let bytes =
            FastCGIClient.begin() + FastCGIClient.stream(.params, FastCGIClient.pairs([("CONTENT_LENGTH", "3")]))
            + FastCGIClient.record(.stdin, Self.body(3), padding: 255) + FastCGIClient.record(.stdin, [], padding: 8)
        #expect(try server.ask(bytes).text.hasSuffix(Self.summary(Self.body(3))))
    }

    @Test(arguments: [0, 1, 8184, 8185, 65536, 1 << 20])
    func `a reply of any size is framed and ended`(_ size: Int) throws {
        let text = String(repeating: "x", count: size)
        let server = try TestServer { $0.reply(text) }
        defer { server.end() }
        let reply = try server.ask(FastCGIClient.request())
        #expect(reply.text == "Status: 200 OK\r\n\r\n" + text)
        #expect(reply.end == Self.ended)
        #expect(reply.records.last?.kind == FastCGIClient.Kind.endRequest.rawValue)
        #expect(reply.records.allSatisfy { [6, 7, 3].contains($0.kind) })
    }

    @Test func `one write is one record of at most its limit, and arrives at once`() throws {
        let isRead = Mutex(false)
        let server = try TestServer { request in
            _ = request.write([UInt8](repeating: 0x61, count: FastCGIRequest.maximumWriteBytes)[...])
            let arrived = eventually { isRead.withLock { $0 } }
            _ = request.write([arrived ? 0x62 : 0x63][...])
        }
        defer { server.end() }
        let client = try FastCGIClient(path: server.path)
        client.send(FastCGIClient.request())
        var first = [UInt8](repeating: 0, count: 9000)
        #expect(unsafe recv(client.descriptor, &first, first.count, 0) == 8192)
        #expect(Array(first[4..<6]) == [0x1F, 0xF8])
        isRead.withLock { $0 = true }
        #expect(client.receive().text == "b")
    }

    @Test func `a handler that writes nothing still ends the request`() throws {
        let server = try TestServer { _ in }
        defer { server.end() }
        let reply = try server.ask(FastCGIClient.request())
        #expect(reply.output == [])
        #expect(reply.end == Self.ended)
    }

    /// nginx takes a connection that is closed under its writes for a failed upstream and replaces the reply by a 502.
    @Test func `a reply before the body is read reaches a client that sends on`() throws {
        let server = try TestServer { $0.reply("early") }
        defer { server.end() }
        let client = try FastCGIClient(path: server.path)
        #expect(client.send(FastCGIClient.request(body: Self.body(4 << 20))))
        let reply = client.receive()
        #expect(reply.text.hasSuffix("early"))
        #expect(reply.end == Self.ended)
    }

    @Test(arguments: [true, false])
    func `a body over the limit is refused`(_ isAnnounced: Bool) throws {
        let server = try TestServer { request in
            do throws(RequestBodyError) {
                request.reply("\(try request.readBody(limitBytes: 1000).count)")
            } catch {
                request.reply("\(error)")
            }
        }
        defer { server.end() }
        for (size, expected) in [
            (1000, "1000"), (1001, "tooLarge(limitBytes: 1000)"), (200_000, "tooLarge(limitBytes: 1000)"),
        ] {
            let bytes =
                FastCGIClient.begin()
                + FastCGIClient.stream(.params, FastCGIClient.pairs(isAnnounced ? [("CONTENT_LENGTH", "\(size)")] : []))
                + FastCGIClient.stream(.stdin, Self.body(size))
            #expect(try server.ask(bytes).text.hasSuffix(expected), "\(size)")
        }
    }

    /// What a body can end with instead of its last record.
    enum Break: CaseIterable { case close, abortRequest, shortEnd }

    @Test(arguments: Break.allCases)
    func `a body that does not arrive whole is aborted`(_ way: Break) throws {
        let error = Mutex<RequestBodyError?>(nil)
        let server = try TestServer { request in
            do throws(RequestBodyError) { _ = try request.readBody(limitBytes: 1 << 20) } catch let failure {
                error.withLock { $0 = failure }
            }
        }
        defer { server.end() }
        let client = try FastCGIClient(path: server.path)
        client.send(FastCGIClient.request(body: Self.body(100), announced: 200, isEnded: false))
        switch way {
        case .close: shutdown(client.descriptor, CInt(SHUT_RDWR))
        case .abortRequest: client.send(FastCGIClient.record(.abortRequest, []))
        case .shortEnd: client.send(FastCGIClient.record(.stdin, []))
        }
        #expect(eventually { error.withLock { $0 != nil } })
        #expect(error.withLock { $0 } == .aborted)
    }

    @Test func `a peer that falls silent in its body times out`() throws {
        let error = Mutex<RequestBodyError?>(nil)
        let server = try TestServer(peerTimeout: .seconds(1)) { request in
            do throws(RequestBodyError) { _ = try request.readBody(limitBytes: 1 << 20) } catch let failure {
                error.withLock { $0 = failure }
            }
        }
        defer { server.end() }
        let client = try FastCGIClient(path: server.path)
        client.send(FastCGIClient.request(body: Self.body(10), announced: 20, isEnded: false))
        #expect(eventually { error.withLock { $0 != nil } })
        #expect(error.withLock { $0 } == .timedOut)
    }

    @Test func `a peer that falls silent in its header frees its thread`() throws {
        let server = try TestServer(threads: 1, peerTimeout: .seconds(1)) { $0.reply("alive") }
        defer { server.end() }
        let silent = try FastCGIClient(path: server.path)
        silent.send([1, 1, 0])
        #expect(try server.ask(FastCGIClient.request()).text.hasSuffix("alive"))
    }

    @Test func `a peer that leaves is noticed`() throws {
        let wasThere = Mutex(false)
        let noticed = Mutex(false)
        let server = try TestServer { request in
            wasThere.withLock { $0 = !request.isAbandoned }
            let seen = eventually { request.isAbandoned }
            noticed.withLock { $0 = seen }
        }
        defer { server.end() }
        let client = try FastCGIClient(path: server.path)
        client.send(FastCGIClient.request())
        #expect(eventually { wasThere.withLock { $0 } })
        shutdown(client.descriptor, CInt(SHUT_RDWR))
        #expect(eventually { noticed.withLock { $0 } })
    }

    @Test func `a write to a peer that left says so and ends nothing else`() throws {
        let result = Mutex<Bool?>(nil)
        let server = try TestServer { request in
            _ = eventually { request.isAbandoned }
            let wrote = request.write(Array("x".utf8)[...]) && request.write(Array("y".utf8)[...])
            result.withLock { if $0 == nil { $0 = wrote } }
            request.reply("alive")
        }
        defer { server.end() }
        do {
            let client = try FastCGIClient(path: server.path)
            client.send(FastCGIClient.request())
        }
        #expect(eventually { result.withLock { $0 != nil } })
        #expect(result.withLock { $0 } == false)
    }

    /// Records that libfcgi survives; the ones that abort the process are why the socket is nginx's alone.
    @Test(
        arguments: [
            [], [0], [UInt8](repeating: 0, count: 64), [UInt8](repeating: 0xFF, count: 64),
            Array("GET / HTTP/1.1\r\n\r\n".utf8),
            FastCGIClient.record(.beginRequest, [0, 1, 0, 0, 0, 0, 0, 0], version: 9), FastCGIClient.begin(role: 2),
            FastCGIClient.begin(role: 3), FastCGIClient.begin(role: 77), FastCGIClient.record(.beginRequest, [0, 1]),
            FastCGIClient.record(.params, [1, 1, 0x61, 0x62]), FastCGIClient.record(.stdin, [1, 2, 3]),
            FastCGIClient.begin() + FastCGIClient.record(.params, [5, 5, 0x61]) + FastCGIClient.record(.params, []),
            FastCGIClient.begin() + FastCGIClient.record(.params, [200]), FastCGIClient.begin() + FastCGIClient.begin(),
            FastCGIClient.record(.endRequest, FastCGIServerTests.ended), FastCGIClient.record(.abortRequest, []),
        ] as [[UInt8]])
    func `a malformed request neither kills nor wedges the server`(_ bytes: [UInt8]) throws {
        let server = try TestServer(threads: 1, handler: Self.echo())
        defer { server.end() }
        for _ in 0..<3 {
            let client = try FastCGIClient(path: server.path)
            client.send(bytes)
            shutdown(client.descriptor, CInt(SHUT_WR))
            _ = client.receive()
        }
        #expect(try server.ask(FastCGIClient.request(body: Self.body(5))).text.hasSuffix(Self.summary(Self.body(5))))
    }

    @Test func `a peer that asks to keep its connection gets a reply and a close`() throws {
        let server = try TestServer(threads: 1) { $0.reply("x") }
        defer { server.end() }
        let bytes =
            FastCGIClient.begin(keepsConnection: true) + FastCGIClient.stream(.params, [])
            + FastCGIClient.stream(.stdin, [])
        for _ in 0..<3 { #expect(try server.ask(bytes).end == Self.ended) }
    }

    @Test func `as many requests run at once as there are threads`() throws {
        let running = Mutex(0)
        let server = try TestServer(threads: 4) { request in
            running.withLock { $0 += 1 }
            let all = eventually { running.withLock { $0 == 4 } }
            request.reply("\(all)")
        }
        defer { server.end() }
        let clients = try (0..<4).map { _ in try FastCGIClient(path: server.path) }
        for client in clients { client.send(FastCGIClient.request()) }
        for client in clients { #expect(client.receive().text.hasSuffix("true")) }
    }

    @Test func `more requests than threads are all answered`() throws {
        let server = try TestServer(threads: 2, handler: Self.echo())
        defer { server.end() }
        let clients = try (0..<60).map { _ in try FastCGIClient(path: server.path) }
        for client in clients { client.send(FastCGIClient.request(body: Self.body(10))) }
        for client in clients { #expect(client.receive().text.hasSuffix(Self.summary(Self.body(10)))) }
    }

    @Test func `finish sends the whole reply before the handler returns`() throws {
        let release = Mutex(false)
        let server = try TestServer { request in
            request.reply("done")
            request.finish()
            request.finish()
            #expect(request.descriptor == -1)
            _ = eventually { release.withLock { $0 } }
        }
        defer { server.end() }
        let reply = try server.ask(FastCGIClient.request())
        #expect(reply.text.hasSuffix("done"))
        #expect(reply.end == Self.ended)
        release.withLock { $0 = true }
    }

    @Test func `stop lets a running request complete, then run returns`() throws {
        let state = Mutex((started: false, released: false))
        let server = try TestServer(threads: 2) { request in
            state.withLock { $0.started = true }
            _ = eventually { state.withLock { $0.released } }
            request.reply("complete")
        }
        let client = try FastCGIClient(path: server.path)
        client.send(FastCGIClient.request())
        #expect(eventually { state.withLock { $0.started } })
        server.stop()
        server.stop()
        usleep(50_000)
        #expect(!server.hasEnded)
        // Nothing new is accepted; the connection waits for another responder on the same socket.
        let late = try FastCGIClient(path: server.path)
        late.send(FastCGIClient.request())
        usleep(50_000)
        var entry = pollfd(fd: late.descriptor, events: Int16(POLLIN), revents: 0)
        #expect(unsafe poll(&entry, 1, 0) == 0)
        state.withLock { $0.released = true }
        #expect(client.receive().text.hasSuffix("complete"))
        server.end()
    }

    @Test func `an idle server stops at once`() throws {
        let server = try TestServer(threads: 8) { _ in }
        let began = ContinuousClock.now
        server.end()
        #expect(ContinuousClock.now - began < .seconds(10))
    }

    @Test func `many requests leak no descriptor`() throws {
        let server = try TestServer(threads: 2, handler: Self.echo())
        defer { server.end() }
        func sockets() -> Int {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
            return names.count
        }
        for _ in 0..<20 { _ = try server.ask(FastCGIClient.request(body: Self.body(10))) }
        let before = sockets()
        for number in 0..<300 {
            let client = try FastCGIClient(path: server.path)
            client.send(number % 3 == 0 ? [1, 1, 0] : FastCGIClient.request(body: Self.body(10)))
            if number % 3 != 0 { _ = client.receive() }
        }
        // Other suites run meanwhile and open a few of their own.
        #expect(eventually { sockets() < before + 100 })
    }

    @Test func `both sockets are served, and by any thread`() throws {
        let server = try TestServer(threads: 2, hasOwn: true, handler: Self.echo())
        defer { server.end() }
        let own = try #require(server.own?.boundPath)
        for number in 0..<40 {
            let client = try FastCGIClient(path: number % 2 == 0 ? own : server.path)
            client.send(FastCGIClient.request(body: Self.body(number)))
            #expect(client.receive().text.hasSuffix(Self.summary(Self.body(number))))
        }
    }

    /// The shared backlog is another responder's to serve; nobody else can serve the own one.
    @Test func `what waits at the own socket when the server stops is answered, and nothing more comes in`() throws {
        let release = Mutex(false)
        let started = Mutex(0)
        let server = try TestServer(threads: 2, hasOwn: true) { request in
            started.withLock { $0 += 1 }
            _ = eventually { release.withLock { $0 } }
            request.reply("complete")
        }
        let own = try #require(server.own?.boundPath)
        let running = try (0..<2).map { _ in try FastCGIClient(path: server.path) }
        for client in running { client.send(FastCGIClient.request()) }
        #expect(eventually { started.withLock { $0 == 2 } })
        let waiting = try (0..<5).map { _ in try FastCGIClient(path: own) }
        for client in waiting { client.send(FastCGIClient.request()) }
        let shared = try FastCGIClient(path: server.path)
        shared.send(FastCGIClient.request())
        server.stop()
        #expect(unsafe access(own, F_OK) != 0)
        #expect(throws: FastCGIClient.NotConnected.self) { try FastCGIClient(path: own) }
        #expect(!server.hasEnded)
        release.withLock { $0 = true }
        for client in running + waiting { #expect(client.receive().text.hasSuffix("complete")) }
        server.end()
        var entry = pollfd(fd: shared.descriptor, events: Int16(POLLIN), revents: 0)
        _ = unsafe poll(&entry, 1, 0)
        #expect(started.withLock { $0 } == 7)
    }

    /// A connection that was let in is answered, whatever the instant at which the server stops.
    @Test func `no connection to the own socket is lost when the server stops`() throws {
        for round in 0..<30 {
            let server = try TestServer(threads: 2, hasOwn: true) { $0.reply("complete") }
            let own = try #require(server.own?.boundPath)
            let outcome = Mutex((answered: 0, lost: 0, isRefused: false))
            Thread {
                while !outcome.withLock({ $0.isRefused }) {
                    guard let client = try? FastCGIClient(path: own) else {
                        outcome.withLock { $0.isRefused = true }
                        return
                    }
                    client.send(FastCGIClient.request())
                    let isAnswered = client.receive().text.hasSuffix("complete")
                    outcome.withLock { if isAnswered { $0.answered += 1 } else { $0.lost += 1 } }
                }
            }.start()
            #expect(eventually { outcome.withLock { $0.answered > round } })
            server.end()
            #expect(eventually { outcome.withLock { $0.isRefused } })
            #expect(outcome.withLock { $0.lost } == 0)
        }
    }

    @Test func `a hand-over is three header lines, and a request that was handed over is known`() throws {
        let server = try TestServer { request in
            guard !request.isHandedOver else { return request.reply("here") }
            let isSent = request.handOver(to: 4711)
            #expect(isSent)
        }
        defer { server.end() }
        let first = try server.ask(FastCGIClient.request(body: Self.body(1 << 20)))
        #expect(first.text == "Status: 200 OK\r\nX-Accel-Redirect: @claude_fcgi\r\nX-Responder: r-4711.sock\r\n\r\n")
        #expect(first.end == Self.ended)
        let second = try server.ask(FastCGIClient.request([("CLAUDE_FCGI_HANDED_OVER", "1")]))
        #expect(second.text.hasSuffix("here"))
        // What a client can send becomes another name.
        let forged = try server.ask(FastCGIClient.request([("HTTP_CLAUDE_FCGI_HANDED_OVER", "1")]))
        #expect(forged.text.contains("X-Responder"))
    }
}
