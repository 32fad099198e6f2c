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
