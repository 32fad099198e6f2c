import Dialects
import Testing

@testable import ClaudeFCGI

@Suite struct RouteTests {
    @Test(arguments: [
        ("GET", "/health", Route.health), ("HEAD", "/health", .health), ("GET", "/v1/models", .models),
        ("HEAD", "/v1/models", .models), ("GET", "/v1/models/sonnet", .model(id: "sonnet")),
        ("GET", "/v1/models/a%2Fb%20c", .model(id: "a/b c")),
        ("GET", "/v1/models/opus%5B1m%5D", .model(id: "opus[1m]")),
        ("GET", "/v1/models/x%zz", .model(id: "x%zz")), ("GET", "/v1/models/x%2", .model(id: "x%2")),
        ("GET", "/v1/models/a/b", .model(id: "a/b")), ("GET", "/v1/models/%FF", .model(id: "\u{FFFD}")),
        ("POST", "/v1/chat/completions", .chatCompletions), ("POST", "/v1/messages", .messages),
        ("POST", "/api/run", .run), ("POST", "/v1/completions", .completions),
        ("POST", "/v1/messages/count_tokens", .countTokens), ("GET", "/metrics", .metrics),
        ("GET", "/api/sessions", .sessions), ("DELETE", "/api/sessions", .sessions),
        ("GET", "/api/sessions/a", .session(id: "a")), ("DELETE", "/api/sessions/a", .session(id: "a")),
        ("GET", "/api/runs/a", .backgroundRun(id: "a")), ("GET", "/api/runs/a/events", .backgroundRunEvents(id: "a")),
        ("POST", "/api/runs/a/cancel", .backgroundRunCancel(id: "a")),
    ])
    func `a path leads to its route`(_ method: String, _ path: String, _ route: Route) throws {
        #expect(try Route.of(method: method, path: path) == route)
    }

    @Test(arguments: [
        "", "/", "/health/", "/Health", "/v1", "/v1/", "/v1/models/", "/v1/chat", "/v1/chat/completions/",
        "/v1/completions/", "/v1/messages/count_tokens/",
        "/v1/messages/x", "/api", "/api/run/", "/api/sessions/", "/api/runs", "/api/runs/", "/api/runs/x/y",
        "/api/sessions/x/y", "//health", "/v1//models", "/%68ealth", "/health%00",
        "/../health",
    ])
    func `other paths lead nowhere`(_ path: String) throws {
        for method in ["GET", "POST", ""] {
            let error = try #require(throws: APIError.self) { try Route.of(method: method, path: path) }
            #expect(error.kind == .notFound)
        }
    }

    @Test(arguments: [
        ("POST", "/health"), ("DELETE", "/health"), ("POST", "/v1/models"), ("PUT", "/v1/models/x"),
        ("GET", "/v1/messages"),
        ("HEAD", "/v1/messages"), ("GET", "/v1/chat/completions"), ("PATCH", "/api/run"), ("get", "/health"),
        ("", "/health"),
        ("OPTIONS", "/api/run"), ("GET", "/v1/completions"), ("GET", "/v1/messages/count_tokens"),
    ])
    func `another method is refused by name of the right one`(_ method: String, _ path: String) throws {
        let error = try #require(throws: APIError.self) { try Route.of(method: method, path: path) }
        #expect(error.kind == .methodNotAllowed)
        #expect(error.message.contains("takes"))
    }

    @Test(arguments: [
        Route.health, .models, .model(id: "x"), .chatCompletions, .completions, .messages, .countTokens, .run, .metrics,
    ])
    func `only health and metrics are open`(_ route: Route) {
        #expect(route.isOpen == [.health, .metrics].contains(route))
    }

    @Test func `a route's name has nothing of the caller's`() {
        #expect(Route.model(id: "secret").name == "/v1/models/ID")
    }

    @Test(arguments: [
        (Route.completions, "/v1/completions"), (.countTokens, "/v1/messages/count_tokens"),
        (.messages, "/v1/messages"),
        (.chatCompletions, "/v1/chat/completions"), (.run, "/api/run"), (.metrics, "/metrics"), (.health, "/health"),
    ])
    func `a route is counted under its own path`(_ route: Route, _ name: String) {
        #expect(route.name == name)
        #expect(Route.names.last == "other")
    }

    @Test(arguments: [
        ("/v1/messages", Dialect.anthropic), ("/v1/messages/x", .anthropic), ("/v1/messagesx", .openAI),
        ("/v1/x", .openAI),
        ("/v1", .direct), ("/api/x", .direct), ("/", .direct), ("", .direct),
    ])
    func `a path that leads nowhere is answered in its dialect`(_ path: String, _ dialect: Dialect) {
        #expect(Route.dialect(ofPath: path) == dialect)
    }

    @Test(arguments: [
        ("POST", "/v1/chat/completions", Dialect.openAI), ("GET", "/v1/models", .openAI),
        ("POST", "/v1/messages", .anthropic), ("POST", "/v1/completions", .openAI),
        ("POST", "/v1/messages/count_tokens", .anthropic),
        ("POST", "/api/run", .direct), ("GET", "/health", .direct),
    ])
    func `a route and its path have one dialect`(_ method: String, _ path: String, _ dialect: Dialect) throws {
        #expect(try Route.of(method: method, path: path).dialect == dialect)
        #expect(Route.dialect(ofPath: path) == dialect)
    }
}

@Suite struct KeyRingTests {
    private static func ring(_ key: String = "Key-123") throws -> KeyRing { try KeyRing(key: key, file: nil) }

    @Test(
        arguments: [
            ("Bearer Key-123", nil), ("bearer Key-123", nil), ("BEARER Key-123", nil), ("Bearer   Key-123 ", nil),
            (nil, "Key-123"),
            ("Bearer Key-123", "Key-123"), ("Bearer wrong", "Key-123"), ("Bearer Key-123", "wrong"),
            ("Basic x", "Key-123"),
        ] as [(String?, String?)])
    func `the key is known in either header`(_ authorization: String?, _ apiKey: String?) throws {
        #expect(try Self.ring().client(authorization: authorization, apiKey: apiKey).name == "default")
    }

    @Test(
        arguments: [
            (nil, nil), ("", nil), (nil, ""), ("Bearer", nil), ("Bearer ", nil), ("Bearer key-123", nil),
            ("Bearer KEY-123", nil),
            ("Key-123", nil), ("Basic Key-123", nil), ("Bearer Key-12", nil), ("Bearer Key-1234", nil),
            ("Bearer Key-123 x", nil),
            ("BearerKey-123", nil), ("Bearer Bearer Key-123", nil), (nil, "key-123"), (nil, "Bearer Key-123"),
            (nil, "Key-1234"),
            ("Bearer x", "y"), ("Bearer Key-123, Bearer x", nil), (nil, "Key-123\u{0}"), ("Bearer é", "é"),
        ] as [(String?, String?)])
    func `anything else is refused without a hint`(_ authorization: String?, _ apiKey: String?) throws {
        let ring = try Self.ring()
        let error = try #require(throws: APIError.self) {
            try ring.client(authorization: authorization, apiKey: apiKey)
        }
        #expect(error.kind == .auth)
        #expect(!error.message.contains("123"))
        #expect(error.cause == nil)
    }

    @Test func `an empty key is never right`() throws {
        let ring = try Self.ring("x")
        #expect(throws: APIError.self) { try ring.client(authorization: "Bearer ", apiKey: "") }
    }

    private static let hash = String(repeating: "ab", count: 32)

    @Test func `a keys file has names, hashes and limits`() throws {
        let text = "# who may call\r\n\nalice:\(Self.hash) concurrency=2 queue=0 # the tests\r\nbob:\(Self.hash)"
        let entries = try KeyRing.parse(text, file: "keys")
        #expect(entries.map(\.client.name) == ["alice", "bob"])
        #expect(entries.map(\.client.admission.concurrency) == [2, nil])
        #expect(entries.map(\.client.admission.queueLimit) == [0, nil])
        #expect(entries.allSatisfy { $0.hash == [UInt8](repeating: 0xAB, count: 32) })
    }

    @Test(arguments: [
        "alice", "alice:", "alice:abcd", ":\(hash)", "a b:\(hash)", "alice:\(hash)x", "alice:\(hash) concurrency=0",
        "alice:\(hash) queue=-1", "alice:\(hash) speed=1", "alice:\(hash) queue=", "alice:\(hash)\nalice:\(hash)",
        "default:\(hash)", "alice:\(hash):x",
    ])
    func `a line that is wrong is named`(_ text: String) {
        let error = #expect(throws: SettingsError.self) { try KeyRing.parse("# first\n" + text, file: "keys") }
        #expect(error?.variable == "PROXY_API_KEYS_FILE")
        #expect(error?.problem.contains("keys line") == true)
    }

    @Test func `each key is its client's`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/keys"
        let lines = ["alice", "bob"].map { name in
            "\(name):" + KeyRing.hash("key-of-\(name)").map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }
        try Files.replace(path, with: Array(lines.joined(separator: "\n").utf8))
        let ring = try KeyRing(key: "the-default", file: path)
        #expect(try ring.client(authorization: "Bearer key-of-bob", apiKey: nil).name == "bob")
        #expect(try ring.client(authorization: nil, apiKey: "key-of-alice").name == "alice")
        #expect(try ring.client(authorization: nil, apiKey: "the-default").name == "default")
        #expect(throws: APIError.self) { try ring.client(authorization: nil, apiKey: "key-of-carol") }
    }
}
