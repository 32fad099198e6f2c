extension RunRequest {
    /// Appends content, to the last turn if that has the same role: the API reads neighbours of one role as one turn, and
    /// the CLI would join them with line ends of its own.
    ///
    /// Results of tools come first in a turn: the API takes them nowhere else.
    mutating func append(_ role: Role, _ blocks: [JSONValue]) {
        guard let last = turns.indices.last, turns[last].role == role else {
            turns.append(Turn(role: role, blocks: blocks))
            return
        }
        turns[last].blocks += blocks
        if role == .user, blocks.contains(where: Self.isToolResult), !turns[last].blocks.allSatisfy(Self.isToolResult) {
            let all = turns[last].blocks
            turns[last].blocks = all.filter(Self.isToolResult) + all.filter { !Self.isToolResult($0) }
        }
    }

    /// The conversation must end with the caller's turn: the CLI answers, it does not continue an answer.
    func requireUserTurnLast(_ parameter: String = "messages") throws(APIError) {
        guard turns.last?.role == .user else {
            throw .invalid(
                parameter,
                "The last message must have the role `user`: the Claude Code CLI can't continue an answer that was "
                    + "begun for it. End `\(parameter)` with a user message.")
        }
    }

    /// Each call of a tool has its result in the next turn, and each result its call.
    ///
    /// The CLI would put a text of its own in the place of a missing result.
    func requireToolResults(_ parameter: String = "messages") throws(APIError) {
        var open: [String] = []
        for (index, turn) in turns.enumerated() {
            let isLast = index == turns.count - 1
            switch turn.role {
            case .assistant:
                open = turn.blocks.compactMap { $0["type"] == "tool_use" ? $0["id"]?.stringValue : nil }
                if isLast { return }
            case .user:
                for block in turn.blocks where Self.isToolResult(block) {
                    let id = block["tool_use_id"]?.stringValue ?? ""
                    guard let place = open.firstIndex(of: id) else {
                        throw .invalid(
                            parameter,
                            "`\(parameter)`: the tool result for `\(id.prefix(64))` has no call in the assistant message before it. Send "
                                + "the call as well, once, and its result right behind it.")
                    }
                    open.remove(at: place)
                }
                if let id = open.first {
                    throw .invalid(
                        parameter,
                        "`\(parameter)`: the tool call `\(id.prefix(64))` has no result in the message behind it. Send a result for every "
                            + "call.")
                }
            }
        }
    }

    /// The request with the directories that `addDirs` was found to mean, in the same order.
    ///
    /// - Throws: ``APIError`` for a directory whose name a rule of the CLI's would read as a pattern.
    public func resolvingDirectories(_ directories: [String]) throws(APIError) -> RunRequest {
        guard case .agent(var agent) = profile else { return self }
        for (index, directory) in directories.enumerated() {
            guard !directory.utf8.contains(where: { Self.patternBytes.contains($0) || $0 < 0x20 }) else {
                let path = "addDirs[\(index)]"
                throw .invalid(
                    path, "`\(path)`: a directory with any of `* ? [ ] { } ! \\` in its path can't be added.")
            }
        }
        agent.addedDirectories = directories
        var request = self
        request.profile = .agent(agent)
        return request
    }

    private static let patternBytes = Set("*?[]{}!\\".utf8)

    /// Asks for an answer that fits a JSON Schema.
    ///
    /// - Parameter path: Where the request has the schema.
    mutating func requireAnswer(fitting schema: JSONValue, path: String) throws(APIError) {
        guard let object = schema.objectValue else {
            throw .invalid(path, "`\(path)` must be a JSON Schema, an object, not \(schema.kindDescription).")
        }
        guard object["type"] == nil || object["type"] == "object" else {
            throw .invalid("\(path).type", "`\(path).type` must be `object`: wrap what you want in an object.")
        }
        outputSchema = schema
        outputSchemaParameter = path
    }

    /// Whether the CLI is Claude Code, and not a plain way to the model.
    var isAgent: Bool { if case .agent = profile { true } else { false } }

    /// Whether the model has tools of the CLI's own.
    var usesCLITools: Bool { isAgent || !hostTools.isEmpty }

    /// The caller's tools as the CLI is told of them.
    ///
    /// Without tools of the CLI's own the choice of none is told to the API itself.
    var offeredTools: [Tool] { !hostTools.isEmpty && toolChoice?["type"] == "none" ? [] : tools }

    private static func isToolResult(_ block: JSONValue) -> Bool { block["type"] == "tool_result" }
}
