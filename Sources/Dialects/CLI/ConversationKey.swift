/// What tells one conversation from another: whose it is, what the model is told beside it, and its turns.
///
/// Two requests have one key where a process that has answered the first can go on with the second. Left out is what the
/// model does not know of: the form of the reply, and how long a run may take.
public enum ConversationKey {
    /// What the key begins with, to be hashed: all but the turns.
    ///
    /// - Parameters:
    ///   - request: Whose parameters count.
    ///   - model: The model in the CLI's own words.
    ///   - client: The name of the caller's key; nil where the service has none.
    public static func parameters(of request: RunRequest, model: String?, client: String?) -> [UInt8] {
        let parameters: [JSONValue] = [
            client.map { .string($0) } ?? nil, model.map { .string($0) } ?? nil,
            .array(request.system.map { .string($0) }), .array(request.tools.map { .object($0.definition) }),
            request.toolChoice.map { .object($0) } ?? nil, thinking(request.thinking),
            request.effort.map { .string($0) } ?? nil, request.maxOutputTokens.map { .integer($0) } ?? nil,
            .array(request.stopSequences.map { .string($0) }), .object(request.sampling),
            .bool(request.usesClaudeCodePrompt),
        ]
        return JSONWriter.bytes(.array(parameters))
    }

    /// What each turn adds to the key.
    public static func bytes(of turn: RunRequest.Turn) -> [UInt8] {
        var bytes: [UInt8] = [0x0A]
        JSONWriter.append(.array([.string(turn.role.rawValue), .array(turn.blocks.map(plain))]), to: &bytes)
        return bytes
    }

    /// A block without what makes no difference to the model: the order of its members, members that are null, and whether
    /// the text of a result is a string or a block.
    static func plain(_ block: JSONValue) -> JSONValue {
        guard let object = block.objectValue else { return block }
        var members = object.members.filter { !$0.value.isNull }.sorted { $0.key < $1.key }
        if block["type"] == "tool_result", let place = members.firstIndex(where: { $0.key == "content" }) {
            switch members[place].value {
            case .string(let text): members[place].value = [plain(RunRequest.Turn.text(text))]
            case .array(let parts): members[place].value = .array(parts.map(plain))
            default: break
            }
        }
        return .object(JSONObject(members))
    }

    private static func thinking(_ thinking: RunRequest.Thinking) -> JSONValue {
        switch thinking {
        case .automatic: "automatic"
        case .off: "off"
        case .summarized: "summarized"
        case .native(let object): object
        }
    }
}
