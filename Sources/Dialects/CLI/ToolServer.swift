/// The MCP server by which the CLI learns of a caller's tools, answered over the CLI's own pipes.
///
/// A call is left unanswered: the caller runs its tools itself, and the CLI waits instead of asking the model to go on. In a
/// process that is kept it is answered when the caller has sent the result: one at a time, each when the CLI has told of the
/// one before, because the model gets them in the order in which the CLI came to them (seen with CLI 2.1.251).
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
    /// Results that the CLI has not been given, in the order of their calls.
    private var due: [(toolUseID: String, result: JSONValue)] = []
    /// The call whose result the CLI has been given last, as long as it has not told of it.
    private var untold: String?
    private var answered: Set<String> = []
    /// Signs of life of calls, since results were given.
    private var heartbeats = 0

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
            open.append(
                Call(requestID: line["request_id"], messageID: message?["id"], toolUseID: id))
            let lines = giveNext()
            return lines.isEmpty ? nil : lines
        default: break
        }
        return Self.reply(line["request_id"], message?["id"], result)
    }

    /// Takes the results of the open calls, in the order of the calls; one may be there before the CLI has asked for it.
    ///
    /// - Returns: What can be written at once.
    mutating func give(_ results: [(toolUseID: String, result: JSONValue)]) -> [UInt8] {
        due = results
        untold = nil
        heartbeats = 0
        return giveNext()
    }

    /// The CLI has told of the result of a call.
    ///
    /// - Returns: The next result.
    mutating func told(_ toolUseID: String) -> [UInt8] {
        if untold == toolUseID { untold = nil }
        return giveNext()
    }

    /// The CLI says that a call still runs; each may do so once by chance.
    ///
    /// - Returns: All results that are due, where the CLI seems to wait for them before it tells of one.
    mutating func heartbeat() -> [UInt8] {
        guard !due.isEmpty else { return [] }
        heartbeats += 1
        guard heartbeats > due.count + 1 else { return [] }
        var lines: [UInt8] = []
        for _ in due {
            untold = nil
            lines += giveNext()
        }
        return lines
    }

    private mutating func giveNext() -> [UInt8] {
        guard untold == nil, let next = due.first,
            let place = open.firstIndex(where: { $0.toolUseID == next.toolUseID })
        else { return [] }
        let call = open.remove(at: place)
        due.removeFirst()
        untold = next.toolUseID
        answered.insert(next.toolUseID)
        return Self.reply(call.requestID, call.messageID, next.result)
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
