// What the API refuses about a request as a whole, in its own words where they are known; MessageRules has the messages.
//
// The offline upstream is a strict judge, so that a test sees what the vendor would not take. The rules are those that do
// not depend on the model. Recorded requests of CLI 2.1.330 keep them all, except a `budget_tokens` of 1024 where
// `max_tokens` is smaller (models without adaptive thinking only).
//
// Sources: https://docs.claude.com/en/api/messages, …/build-with-claude/extended-thinking, …/prompt-caching, and error
// messages quoted in issues of anthropics/claude-code.

import Dialects

/// Refuses what the API refuses about tools, thinking, sampling, stop sequences and caching.
enum RequestRules {
    /// Checks everything but `messages`.
    static func check(_ body: JSONValue) throws(UpstreamError) {
        if let limit = body["max_tokens"]?.intValue, limit < 1 {
            throw .invalid("max_tokens: Input should be greater than or equal to 1")
        }
        try checkStopSequences(body["stop_sequences"])
        try checkTools(body["tools"])
        try checkToolChoice(body)
        try checkThinking(body)
        for block in body["system"]?.arrayValue ?? [] where block["text"]?.stringValue?.isEmpty ?? true {
            throw .invalid("system: text content blocks must be non-empty")
        }
        let marks = cacheMarks(in: body)
        if marks > 4 {
            throw .invalid("A maximum of 4 blocks with cache_control may be provided. Found \(marks).")
        }
    }

    private static func checkStopSequences(_ value: JSONValue?) throws(UpstreamError) {
        guard let value, !value.isNull else { return }
        guard let sequences = value.arrayValue else { throw .invalid("stop_sequences: Input should be a valid array") }
        for (index, sequence) in sequences.enumerated() {
            guard let text = sequence.stringValue else {
                throw .invalid("stop_sequences.\(index): Input should be a valid string")
            }
            if text.allSatisfy(\.isWhitespace) {
                throw .invalid("stop_sequences: each stop sequence must contain non-whitespace")
            }
        }
    }

    private static func checkTools(_ value: JSONValue?) throws(UpstreamError) {
        guard let value, !value.isNull else { return }
        guard let tools = value.arrayValue else { throw .invalid("tools: Input should be a valid array") }
        var names: Set<String> = []
        for (index, tool) in tools.enumerated() {
            let place = "tools.\(index).custom"
            guard let name = tool["name"]?.stringValue else { throw .invalid("\(place).name: Field required") }
            if !isIdentifier(name, atMost: 128) {
                throw .invalid("\(place).name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
            }
            if !names.insert(name).inserted { throw .invalid("tools: Tool names must be unique.") }
            // The vendor's own tools, such as web_search_20250305, have a type and no schema.
            if let type = tool["type"]?.stringValue, type != "custom" { continue }
            guard let schema = tool["input_schema"]?.objectValue else {
                throw .invalid("\(place).input_schema: Field required")
            }
            guard let type = schema["type"] else { throw .invalid("\(place).input_schema.type: Field required") }
            if type != "object" { throw .invalid("\(place).input_schema.type: Input should be 'object'") }
            if ["oneOf", "allOf", "anyOf"].contains(where: { schema[$0] != nil }) {
                let reason = "input_schema does not support oneOf, allOf, or anyOf at the top level"
                throw .invalid("\(place).input_schema: \(reason)")
            }
        }
    }

    private static func checkToolChoice(_ body: JSONValue) throws(UpstreamError) {
        guard let choice = body["tool_choice"], !choice.isNull else { return }
        let names = (body["tools"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
        if names.isEmpty { throw .invalid("tool_choice: `tool_choice` may only be specified while providing `tools`") }
        switch choice["type"] {
        case "auto", "none": return
        case "any": break
        case "tool":
            guard let name = choice["name"]?.stringValue else {
                throw .invalid("tool_choice.tool.name: Field required")
            }
            if !names.contains(name) { throw .invalid("Tool '\(name)' not found in provided tools") }
        default:
            throw .invalid("tool_choice: Input should have the 'type' 'auto', 'any', 'tool' or 'none'")
        }
        if isThinking(body) { throw .invalid("Thinking may not be enabled when tool_choice forces tool use.") }
    }

    private static func isThinking(_ body: JSONValue) -> Bool {
        body["thinking"]?["type"] == "enabled" || body["thinking"]?["type"] == "adaptive"
    }

    private static func checkThinking(_ body: JSONValue) throws(UpstreamError) {
        if let thinking = body["thinking"], !thinking.isNull {
            switch thinking["type"] {
            case "adaptive", "disabled": break
            case "enabled": try checkBudget(thinking["budget_tokens"]?.intValue, body["max_tokens"]?.intValue)
            default:
                throw .invalid("thinking: Input should have the 'type' 'enabled', 'disabled' or 'adaptive'")
            }
        }
        if isThinking(body) { return try checkSampling(body) }
        // The CLI adds this to its requests; it has to go when thinking goes.
        let edits = body["context_management"]?["edits"]?.arrayValue ?? []
        if edits.contains(where: { $0["type"] == "clear_thinking_20251015" }) {
            throw .invalid("`clear_thinking_20251015` strategy requires `thinking` to be enabled or adaptive")
        }
    }

    private static func checkBudget(_ budget: Int?, _ limit: Int?) throws(UpstreamError) {
        guard let budget else { throw .invalid("thinking.enabled.budget_tokens: Field required") }
        if budget < 1024 {
            throw .invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        }
        if let limit, budget >= limit {
            throw .invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
        }
    }

    private static func checkSampling(_ body: JSONValue) throws(UpstreamError) {
        if let temperature = body["temperature"]?.doubleValue, temperature != 1 {
            throw .invalid("`temperature` may only be set to 1 when thinking is enabled.")
        }
        if let share = body["top_p"]?.doubleValue, share < 0.95 {
            throw .invalid("`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")
        }
        if body["top_k"]?.intValue != nil { throw .invalid("`top_k` must be unset when thinking is enabled.") }
    }

    /// Whether a text is letters, digits, `_` and `-` of ASCII only, and not empty.
    static func isIdentifier(_ text: String, atMost limit: Int = .max) -> Bool {
        (1...limit).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }

    /// How many blocks end a cached prefix; what a schema or a tool's input calls `cache_control` is none.
    private static func cacheMarks(in body: JSONValue) -> Int {
        func marks(_ blocks: JSONValue?) -> Int {
            (blocks?.arrayValue ?? []).reduce(0) { $0 + mark($1) + marks($1["content"]) }
        }
        func mark(_ block: JSONValue) -> Int { block["cache_control"].map { $0.isNull ? 0 : 1 } ?? 0 }
        let messages = body["messages"]?.arrayValue ?? []
        let tools = body["tools"]?.arrayValue ?? []
        return mark(body) + marks(body["system"]) + tools.reduce(0) { $0 + mark($1) }
            + messages.reduce(0) { $0 + marks($1["content"]) }
    }
}
