import Dialects
import Testing

@Suite struct ModelCatalogTests {
    @Test func `the recorded CLI offers aliases, then the ids behind them`() throws {
        let catalog = try ModelCatalog.recorded()
        #expect(catalog.version?.description == "2.1.330")
        #expect(catalog.models.map(\.id).prefix(4) == ["opus", "fable", "sonnet", "haiku"])
        #expect(catalog.models.first { $0.id == "sonnet" }?.resolvedID == "claude-sonnet-5-5")
        #expect(catalog.models.contains { $0.id == "claude-sonnet-5-5" })
        #expect(!catalog.models.contains { $0.id == "default" })
        #expect(Set(catalog.models.map(\.id)).count == catalog.models.count)
    }

    @Test func `a CLI that lists nothing still serves the fixed aliases`() {
        let catalog = ModelCatalog(initializeResponse: [:])
        #expect(catalog.models.map(\.id) == ["opus", "sonnet", "haiku"])
        #expect(catalog.version == nil)
    }

    @Test(arguments: [
        ("sonnet", "sonnet"), ("SONNET", "sonnet"), ("Claude-Sonnet-5-5", "claude-sonnet-5-5"),
        ("claude-3-5-haiku-20241022", "claude-3-5-haiku-20241022"), ("claude-sonnet-5-5[1m]", "claude-sonnet-5-5[1m]"),
        ("sonnet[1m]", "sonnet[1m]"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
        ("claude-opus-4@20250514", "claude-opus-4@20250514"),
    ])
    func `a known model and a full id are served`(_ name: String, _ expected: String) throws {
        #expect(try ModelCatalog.recorded().resolve(name) == expected)
    }

    @Test(arguments: [
        "", " ", "gpt-4o", "claude", "sonnet ", "sonnet\n", "--resume=x", "claude-sonnet 5", "claude-\u{0}", "claude-é",
        "claude-\"", "claude-;rm", "gpt-4[1m]", "default", "claude-" + String(repeating: "x", count: 200),
    ])
    func `anything else is refused with what is served`(_ name: String) throws {
        let catalog = try ModelCatalog.recorded()
        let error = try #require(throws: APIError.self) { try catalog.resolve(name) }
        #expect(error.kind == .modelNotFound)
        #expect(error.status == 404)
        #expect(error.parameter == "model")
        #expect(error.message.contains("sonnet"))
        #expect(error.message.count < 600)
    }

    @Test func `the list is OpenAI's`() {
        let catalog = ModelCatalog(version: nil, models: [.init(id: "sonnet", resolvedID: "s", displayName: "S")])
        #expect(
            text(ModelsReply.list(catalog))
                == #"{"object":"list","data":[{"id":"sonnet","object":"model","created":0,"owned_by":"anthropic"}]}"#)
    }
}

@Suite struct ModelAliasTests {
    private static func catalog() throws -> ModelCatalog {
        try ModelCatalog.recorded().adding([
            ("gpt-4o", "sonnet"), ("mine", "claude-sonnet-5-5"), ("far", "claude-unknown-9"),
        ])
    }

    @Test(arguments: [
        ("gpt-4o", "sonnet", "claude-sonnet-5-5"), ("GPT-4o", "sonnet", "claude-sonnet-5-5"),
        ("mine", "claude-sonnet-5-5", "claude-sonnet-5-5"), ("far", "claude-unknown-9", "claude-unknown-9"),
        ("opus", "opus", nil),
    ])
    func `an operator's name stands for a model`(_ name: String, _ expected: String, _ full: String?) throws {
        let catalog = try Self.catalog()
        let resolved = try catalog.resolve(name)
        #expect(resolved == expected)
        if let full { #expect(catalog.fullID(of: resolved) == full) }
    }

    @Test func `operators' names are listed last, with the model's own name`() throws {
        let catalog = try Self.catalog()
        #expect(catalog.models.suffix(3).map(\.id) == ["gpt-4o", "mine", "far"])
        let sonnet = try #require(catalog.models.first { $0.id == "sonnet" })
        #expect(catalog.models.suffix(3).first?.displayName == sonnet.displayName)
    }

    @Test func `the CLI's own choice has a full id where it says so`() throws {
        #expect(try ModelCatalog.recorded().fullID(of: nil)?.hasPrefix("claude-") == true)
        #expect(ModelCatalog(initializeResponse: [:]).fullID(of: nil) == nil)
        #expect(ModelCatalog(initializeResponse: [:]).fullID(of: "claude-x") == "claude-x")
    }

    @Test func `the fingerprint tells one CLI from another`() throws {
        #expect(try ModelCatalog.recorded().fingerprint == "fp_claude_2.1.330")
        #expect(ModelCatalog(initializeResponse: [:]).fingerprint == "fp_claude_code")
    }
}

@Suite struct ModelsReplyTests {
    private static let catalog = ModelCatalog(
        version: nil, models: ["a", "b", "c", "d", "e"].map { .init(id: $0, resolvedID: $0, displayName: "M\($0)") })

    private static func page(_ query: String) throws -> ModelsReply.Page {
        try ModelsReply.Page(
            query: query.split(separator: "&").map { pair in
                let parts = pair.split(separator: "=", omittingEmptySubsequences: false)
                return (String(parts[0]), String(parts[1]))
            })
    }

    @Test(arguments: [
        ("", "abcde", false), ("limit=5", "abcde", false), ("limit=2", "ab", true), ("after_id=b&limit=2", "cd", true),
        ("after_id=c&limit=2", "de", false), ("after_id=e", "", false), ("before_id=c", "ab", false),
        ("before_id=e&limit=2", "cd", true), ("before_id=a", "", false), ("after_id=unknown&limit=1", "a", true),
        ("other=1", "abcde", false),
    ])
    func `a list comes in pages`(_ query: String, _ shown: String, _ hasMore: Bool) throws {
        let reply = ModelsReply.messagesList(Self.catalog, page: try Self.page(query))
        let ids = reply["data"]?.arrayValue?.compactMap { $0["id"]?.stringValue } ?? []
        #expect(ids.joined() == shown)
        #expect(reply["has_more"] == .bool(hasMore))
        #expect(reply["first_id"] == ids.first.map { .string($0) } ?? .null)
        #expect(reply["last_id"] == ids.last.map { .string($0) } ?? .null)
    }

    @Test(arguments: ["0", "1001", "-1", "x", "", "1.5"])
    func `a limit that makes no sense is named`(_ limit: String) throws {
        let error = try #require(throws: APIError.self) { try Self.page("limit=\(limit)") }
        #expect(error.parameter == "limit")
    }

    @Test func `a model has each vendor's shape`() {
        let model = Self.catalog.models[0]
        #expect(
            text(ModelsReply.messagesEntry(model))
                == #"{"type":"model","id":"a","display_name":"Ma","created_at":"1970-01-01T00:00:00Z","lifecycle":"active"}"#
        )
        #expect(
            text(ModelsReply.entry(model)) == #"{"id":"a","object":"model","created":0,"owned_by":"anthropic"}"#)
    }
}
