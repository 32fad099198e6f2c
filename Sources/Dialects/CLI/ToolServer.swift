/// The MCP server by which the CLI learns of a caller's tools, answered over the CLI's own pipes.
///
/// A call is left unanswered: the caller runs its tools itself, and the CLI waits instead of asking the model to go on.
struct ToolServer: Sendable {
    private let tools: [RunRequest.Tool]
    /// Whether the CLI has been told the tools.
    private(set) var isListed = false

    init(_ tools: [RunRequest.Tool]) { self.tools = tools }

    /// What the CLI is answered; nil for a call.
    mutating func answer(_ message: JSONValue?) -> JSONValue? {
        var result: JSONValue = [:]
        switch message?["method"]?.stringValue {
        case "initialize":
            result = [
                "protocolVersion": message?["params"]?["protocolVersion"] ?? "2025-06-18",
                "capabilities": ["tools": [:]], "serverInfo": ["name": .string(ToolNames.server), "version": "1"],
            ]
        case "tools/list":
            isListed = true
            result = ["tools": .array(tools.map { Self.listed($0) })]
        case "tools/call": return nil
        default: break
        }
        return ["mcp_response": ["jsonrpc": "2.0", "id": message?["id"] ?? nil, "result": result]]
    }

    /// A tool as the CLI takes it.
    ///
    /// `readOnlyHint` makes it announce all calls of one message at once.
    private static func listed(_ tool: RunRequest.Tool) -> JSONValue {
        var schema: JSONValue = ["type": "object"]
        if let own = tool.definition["input_schema"], isPlain(own) { schema = own }
        return [
            "name": .string(ToolNames.toCLI(tool.name)),
            "description": .string(tool.definition["description"]?.stringValue ?? ""),
            "inputSchema": schema,
            "annotations": ["readOnlyHint": true],
        ]
    }

    /// Whether the CLI takes the schema: at one that it does not, it drops all tools.
    private static func isPlain(_ schema: JSONValue) -> Bool {
        guard schema["type"]?.stringValue == "object" else { return false }
        if let properties = schema["properties"] {
            guard let members = properties.objectValue?.members,
                members.allSatisfy({ $0.value.objectValue != nil })
            else { return false }
        }
        if let required = schema["required"] {
            guard required.arrayValue?.allSatisfy({ $0.stringValue != nil }) == true else { return false }
        }
        return true
    }
}
