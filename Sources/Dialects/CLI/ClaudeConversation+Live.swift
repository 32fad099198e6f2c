// A process that is kept for the turn that continues its conversation.
//
// The CLI's own record of the answer decides whether it can be: what is in it goes to the model with the next turn, and must
// be what the caller would send in its place, the answer as `Answer.turnBlocks` gives it. So whatever a version of the CLI
// does of its own accord, a process whose record differs is ended.
//
// After an answer that calls the caller's tools the CLI waits: it has sent a `tools/call` for each, and asks the model again
// when it has all results. What else it may do in the meantime (a heartbeat, a call that comes late) is read, or its pipe
// would fill.

extension ClaudeConversation {
    /// The calls of the caller's tools that wait for results in a process that ``isContinuable``, by the model's ids.
    public var openCalls: [String] { turn.answer.toolCalls.map(\.id) }

    /// The turn is over, and the process waits for the next.
    ///
    /// Only when ``isContinuable``; then come ``receiveParked(_:in:)`` and in the end ``resume(_:)``.
    public mutating func park() {
        precondition(isContinuable && state == .ended, "a conversation that can't be continued is parked")
        isCut = false
        state = .parked
    }

    /// Takes a line that the CLI writes while it waits.
    ///
    /// - Returns: What is to be written, or ``Action/end`` when the process can't be used any more.
    public mutating func receiveParked(_ bytes: [UInt8], in range: Range<Int>) -> [Action] {
        guard state == .parked, !range.isEmpty else { return [] }
        guard let line = try? JSONParser.parse(bytes, in: range) else { return outputEnded(cause: "") }
        switch line["type"]?.stringValue {
        case "tool_progress", "rate_limit_event", "keep_alive", "control_response": return []
        case "control_request":
            let actions = controlRequest(line)
            return tools.hasUnknownCall ? outputEnded(cause: "") : actions
        case "system":
            let subtype = line["subtype"]?.stringValue
            let isAsking = subtype == "init" || subtype == "api_retry" || line["status"] == "requesting"
            return isAsking ? outputEnded(cause: "") : []
        // It goes on by itself, or is at an end.
        default: return outputEnded(cause: "")
        }
    }

    /// Goes on with the last turn of a request, whose parameters and earlier turns are this conversation
    /// (``ConversationKey``); results of tools only as ``RunRequest/canResume(openCalls:)`` has it.
    ///
    /// From here on it is as after ``start()``: lines to ``receive(_:in:)``, and events from ``RunEvent/started`` on.
    public mutating func resume(_ request: RunRequest) -> [Action] {
        let calls = openCalls
        precondition(state == .parked && request.canResume(openCalls: calls), "a turn that can't follow is resumed")
        let model = reader.model
        beginTurn(of: request)
        reader.model = model
        turn.isResumed = true
        turn.goesOn = !calls.isEmpty
        let blocks = request.turns.last?.blocks ?? []
        let lines = calls.isEmpty ? ClaudeLine.user(blocks) : tools.give(LiveResults.results(of: blocks))
        return [.event(.started(sessionID: sessionID, model: model))] + write(lines)
    }

    // MARK: Whether the process can be kept

    /// What the caller gets, for a request whose process may be kept.
    mutating func collect(_ events: [RunEvent]) {
        guard request.allowsLive else { return }
        for event in events { turn.answer.append(event) }
    }

    /// A chat's message as the CLI has recorded it.
    mutating func record(_ line: JSONValue) -> [Action] {
        guard request.allowsLive, let content = line["message"]?["content"]?.arrayValue else {
            turn.isOdd = true
            return []
        }
        guard line["type"] == "user" else {
            turn.recorded += content
            return []
        }
        // The CLI tells what it took for a result of a tool. One that the caller has not given is its own invention.
        let ids = content.map { $0["tool_use_id"]?.stringValue ?? "" }
        if ids.allSatisfy({ tools.hasAnswered($0) }) { return write(ids.flatMap { tools.told($0) }) }
        turn.isOdd = true
        guard turn.goesOn, !turn.isAnswered else { return [] }
        isCut = true
        return fail(
            APIError(
                .cli, "The Claude Code CLI did not take the results of tools. Send the request again.",
                cause: "a tool result of the CLI's own", isTransient: true))
    }

    /// A call still runs.
    mutating func heartbeat() -> [Action] { write(tools.heartbeat()) }

    private func write(_ lines: [UInt8]) -> [Action] { lines.isEmpty ? [] : [.write(lines)] }

    /// Whether the answer ended by itself, with text.
    var hasSaidAll: Bool {
        turn.answer.stopReason == .endTurn && turn.answer.toolCalls.isEmpty && isRecordedAsAnswered
    }

    /// Whether the answer calls tools of the caller's, and nothing else is due.
    var waitsForResults: Bool {
        guard turn.answer.stopReason == .toolUse, !turn.answer.toolCalls.isEmpty, !tools.hasUnknownCall else {
            return false
        }
        let offered = Set(request.offeredTools.map(\.name))
        let areUsable = turn.answer.blocks.allSatisfy { block in
            guard case .toolUse(_, let name) = block.kind else { return true }
            return offered.contains(name) && block.input.objectValue != nil
        }
        return areUsable && isRecordedAsAnswered
    }

    private var isRecordedAsAnswered: Bool {
        guard request.allowsLive, !turn.isOdd, turn.answer.messageCount == 1 else { return false }
        let blocks = turn.answer.turnBlocks.map { ConversationKey.plain(ClaudeLine.inCLIWords($0)) }
        return !blocks.isEmpty && blocks == turn.recorded.map(ConversationKey.plain)
    }
}
