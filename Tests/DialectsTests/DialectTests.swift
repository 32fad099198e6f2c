import Dialects
import Testing

@Suite struct DialectTests {
    private static func error(_ kind: APIError.Kind) -> APIError {
        APIError(
            kind, "It failed: \"why\". Do this.", parameter: "messages[0]", retryAfterSeconds: 5,
            cause: "secret cause of the log")
    }

    @Test(arguments: Dialect.allCases, APIError.Kind.allCases)
    func `an error has its dialect's shape and hides its cause`(_ dialect: Dialect, _ kind: APIError.Kind) throws {
        let body = dialect.errorBody(Self.error(kind), requestID: "req-1")
        #expect(!text(body).contains("secret"))
        let error = try #require(body["error"])
        #expect(error["message"] == "It failed: \"why\". Do this.")
        switch dialect {
        case .openAI:
            #expect(error.objectValue?.members.map(\.key) == ["message", "type", "param", "code"])
            #expect(error["param"] == "messages[0]")
            let types = ["invalid_request_error", "rate_limit_error", "server_error"]
            #expect(types.contains(error["type"]?.stringValue ?? ""))
        case .anthropic:
            #expect(body["type"] == "error")
            #expect(body["request_id"] == "req-1")
            let types = [
                "invalid_request_error", "authentication_error", "permission_error", "not_found_error",
                "request_too_large",
                "rate_limit_error", "api_error", "overloaded_error", "timeout_error",
            ]
            #expect(types.contains(error["type"]?.stringValue ?? ""))
        case .direct:
            #expect(error["code"] == .string(kind.rawValue))
            #expect(error["details"] == ["parameter": "messages[0]"])
        }
    }

    @Test(arguments: Dialect.allCases, APIError.Kind.allCases)
    func `status and type say the same`(_ dialect: Dialect, _ kind: APIError.Kind) {
        let error = Self.error(kind)
        let status = dialect.status(of: error)
        #expect((400...599).contains(status))
        let type = dialect.errorBody(error, requestID: "r")["error"]?["type"]?.stringValue
        switch (dialect, status) {
        case (.direct, _): #expect(type == nil)
        case (.openAI, 500...504): #expect(type == "server_error")
        case (.openAI, 429): #expect(type == "rate_limit_error")
        case (.openAI, _): #expect(type == "invalid_request_error")
        case (.anthropic, 401): #expect(type == "authentication_error")
        case (.anthropic, 403): #expect(type == "permission_error")
        case (.anthropic, 404): #expect(type == "not_found_error")
        case (.anthropic, 413): #expect(type == "request_too_large")
        case (.anthropic, 429): #expect(type == "rate_limit_error")
        case (.anthropic, 500), (.anthropic, 502): #expect(type == "api_error")
        case (.anthropic, 503), (.anthropic, 529): #expect(type == "overloaded_error")
        case (.anthropic, 504): #expect(type == "timeout_error")
        case (.anthropic, _): #expect(type == "invalid_request_error")
        }
    }

    @Test(arguments: [
        (APIError.Kind.invalidRequest, 400), (.auth, 401), (.notFound, 404), (.methodNotAllowed, 405),
        (.modelNotFound, 404),
        (.sessionNotFound, 404), (.sessionLimitReached, 429), (.forbidden, 403), (.requestTooLarge, 413),
        (.requestTimeout, 408), (.queueFull, 429), (.queueTimeout, 504), (.rateLimit, 429), (.overloaded, 503),
        (.upstreamAuth, 502), (.upstream, 502), (.cliNotFound, 500), (.cli, 500), (.timeout, 504), (.unavailable, 503),
        (.internal, 500),
    ])
    func `every kind has a status`(_ kind: APIError.Kind, _ status: Int) {
        #expect(Dialect.openAI.status(of: Self.error(kind)) == status)
        #expect(Dialect.direct.status(of: Self.error(kind)) == status)
        #expect(Dialect.anthropic.status(of: Self.error(kind)) == (kind == .overloaded ? 529 : status))
    }

    @Test(arguments: Dialect.allCases, APIError.Kind.allCases)
    func `an error event is one event with the same body`(_ dialect: Dialect, _ kind: APIError.Kind) {
        let error = Self.error(kind)
        var bytes: [UInt8] = []
        dialect.appendErrorEvent(error, requestID: "r", to: &bytes)
        let body = dialect.errorBody(error, requestID: "r")
        let data = "data: \(text(dialect == .direct ? body["error"] ?? nil : body))\n\n"
        #expect(String(decoding: bytes, as: UTF8.self) == (dialect == .openAI ? data : "event: error\n" + data))
    }

    @Test func `an error without parameter says so in each shape`() {
        let error = APIError(.upstream, "x")
        #expect(
            text(Dialect.openAI.errorBody(error, requestID: "r"))
                == #"{"error":{"message":"x","type":"server_error","param":null,"code":"upstream_error"}}"#)
        #expect(
            text(Dialect.direct.errorBody(error, requestID: "r"))
                == #"{"error":{"code":"upstream_error","message":"x"}}"#)
    }

    @Test(arguments: [
        (APIError.Kind.auth, "invalid_api_key"), (.rateLimit, "rate_limit_exceeded"), (.queueFull, "queue_full"),
    ])
    func `OpenAI's clients know some codes`(_ kind: APIError.Kind, _ code: String) {
        #expect(Dialect.openAI.errorBody(Self.error(kind), requestID: "r")["error"]?["code"] == .string(code))
    }
}
