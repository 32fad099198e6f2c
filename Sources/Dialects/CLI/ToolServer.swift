/// The MCP server by which the CLI learns of a caller's tools, answered over the CLI's own pipes.
///
/// A call is left unanswered: the caller runs its tools itself, and the CLI waits instead of asking the model to go on. In a
/// process that is kept it is answered when the caller has sent the result.
struct ToolServer: Sendable {
    /// A call that the CLI waits for.
    private struct Call: Sendable {
        /// By which the CLI knows its request.
        var requestID: JSONValue?
        /// By which its MCP client knows the message in it.
        var messageID: JSONValue?
        /// The model's id of the call.
        var toolUseID: String
    }

    private let tools: [RunRequest.Tool]
    /// Whether the CLI has been told the tools.
    private(set) var isListed = false
    /// Whether the CLI made a call that can't be told from others.
    private(set) var hasUnknownCall = false
    private var open: [Call] = []
    /// Results by the model's ids of their calls; one may be there before the CLI has asked for it.
    private var results: [String: JSONValue] = [:]
    private var answered: Set<String> = []

    init(_ tools: [RunRequest.Tool]) { self.tools = tools }

    /// Whether the CLI has what we answered to a call of the model's.
    func hasAnswered(_ toolUseID: String) -> Bool { answered.contains(toolUseID) }

    /// The line that answers a request of the CLI's; nil for a call that has no result yet.
    mutating func answer(_ line: JSONValue) -> [UInt8]? {
        let message = line["request"]?["message"]
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
        case "tools/call":
            guard let id = message?["params"]?["_meta"]?["claudecode/toolUseId"]?.stringValue else {
                hasUnknownCall = true
                return nil
            }
            let call = Call(requestID: line["request_id"], messageID: message?["id"], toolUseID: id)
            guard let given = results[id] else {
                open.append(call)
                return nil
            }
            return answer(call, given)
        default: break
        }
        return Self.reply(line["request_id"], message?["id"], result)
    }

    /// Takes the results of the open calls.
    ///
    /// - Returns: The lines for those that the CLI has asked for.
    mutating func give(_ results: [(toolUseID: String, result: JSONValue)]) -> [UInt8] {
        for (id, result) in results { self.results[id] = result }
        let asked = open
        open = []
        return asked.flatMap { call -> [UInt8] in
            if let result = self.results[call.toolUseID] { return answer(call, result) }
            open.append(call)
            return []
        }
    }

    private mutating func answer(_ call: Call, _ result: JSONValue) -> [UInt8] {
        answered.insert(call.toolUseID)
        return Self.reply(call.requestID, call.messageID, result)
    }

    private static func reply(_ requestID: JSONValue?, _ messageID: JSONValue?, _ result: JSONValue) -> [UInt8] {
        ClaudeLine.reply(
            to: requestID,
            JSONObject([
                ("subtype", "success"),
                ("response", ["mcp_response": ["jsonrpc": "2.0", "id": messageID ?? nil, "result": result]]),
            ]))
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
