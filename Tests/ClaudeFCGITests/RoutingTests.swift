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
        ("POST", "/api/run", .run),
    ])
    func `a path leads to its route`(_ method: String, _ path: String, _ route: Route) throws {
        #expect(try Route.of(method: method, path: path) == route)
    }

    @Test(arguments: [
        "", "/", "/health/", "/Health", "/v1", "/v1/", "/v1/models/", "/v1/chat", "/v1/chat/completions/",
        "/v1/completions",
        "/v1/messages/x", "/api", "/api/run/", "/api/sessions", "//health", "/v1//models", "/%68ealth", "/health%00",
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
        ("OPTIONS", "/api/run"),
    ])
    func `another method is refused by name of the right one`(_ method: String, _ path: String) throws {
        let error = try #require(throws: APIError.self) { try Route.of(method: method, path: path) }
        #expect(error.kind == .methodNotAllowed)
        #expect(error.message.contains("takes"))
    }

    @Test(arguments: [Route.health, .models, .model(id: "x"), .chatCompletions, .messages, .run])
    func `only health is open`(_ route: Route) {
        #expect(route.isOpen == (route == .health))
    }

    @Test func `a route's name has nothing of the caller's`() {
        #expect(Route.model(id: "secret").name == "/v1/models/ID")
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
        ("POST", "/v1/messages", .anthropic),
        ("POST", "/api/run", .direct), ("GET", "/health", .direct),
    ])
    func `a route and its path have one dialect`(_ method: String, _ path: String, _ dialect: Dialect) throws {
        #expect(try Route.of(method: method, path: path).dialect == dialect)
        #expect(Route.dialect(ofPath: path) == dialect)
    }
}

@Suite struct AuthenticatorTests {
    private static let authenticator = Authenticator(key: "Key-123")

    @Test(
        arguments: [
            ("Bearer Key-123", nil), ("bearer Key-123", nil), ("BEARER Key-123", nil), ("Bearer   Key-123 ", nil),
            (nil, "Key-123"),
            ("Bearer Key-123", "Key-123"), ("Bearer wrong", "Key-123"), ("Bearer Key-123", "wrong"),
            ("Basic x", "Key-123"),
        ] as [(String?, String?)])
    func `the key is known in either header`(_ authorization: String?, _ apiKey: String?) throws {
        #expect(try Self.authenticator.clientName(authorization: authorization, apiKey: apiKey) == "default")
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
        let error = try #require(throws: APIError.self) {
            try Self.authenticator.clientName(authorization: authorization, apiKey: apiKey)
        }
        #expect(error.kind == .auth)
        #expect(!error.message.contains("123"))
        #expect(error.cause == nil)
    }

    @Test func `an empty key is never right`() {
        #expect(throws: APIError.self) { try Authenticator(key: "x").clientName(authorization: "Bearer ", apiKey: "") }
    }
}
