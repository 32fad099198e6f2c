import Dialects

/// What a session goes on with when a request leaves it open: the model and the system prompts that were asked for last.
struct SessionSettings: Sendable, Equatable {
    private var model: String?
    private var system: [String] = []
    private var appended: String?

    init() {}

    /// From what ``text`` gave; empty for anything else.
    init(_ text: String) {
        guard let json = try? JSONParser.parse(Array(text.utf8)) else { return }
        model = json["model"]?.stringValue
        system = json["system"]?.arrayValue?.compactMap(\.stringValue) ?? []
        appended = json["appendSystemPrompt"]?.stringValue
    }

    /// For the store.
    var text: String {
        StateStore.text([
            "model": model.map { .string($0) } ?? .null, "system": .array(system.map { .string($0) }),
            "appendSystemPrompt": appended.map { .string($0) } ?? .null,
        ])
    }

    /// Fills in what a request of a chat API leaves open, and notes what it says.
    mutating func inherit(_ run: inout RunRequest) {
        run.model = run.model ?? model
        model = run.model
    }

    /// Fills in what a request of the direct API leaves open, and notes what it says.
    mutating func inherit(_ run: inout RunRequest, _ agent: inout AgentProfile) {
        inherit(&run)
        if run.system.isEmpty { run.system = system }
        system = run.system
        agent.appendedSystemPrompt = agent.appendedSystemPrompt ?? appended
        appended = agent.appendedSystemPrompt
    }
}
