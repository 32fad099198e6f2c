extension RunRequest {
    /// Whether a process that ``ClaudeWarmup`` has made ready can take the request.
    ///
    /// A JSON Schema and Claude Code's own prompt are taken only at the very beginning, the CLI's own tools only on the command
    /// line.
    public var fitsWarmProcess: Bool {
        profile == .chat && hostTools.isEmpty && outputSchema == nil && !usesClaudeCodePrompt && !countsTokens
    }

    /// Whether the process that answers may be kept for the next turn, and the request may be that turn.
    public var allowsLive: Bool {
        profile == .chat && hostTools.isEmpty && outputSchema == nil && choiceCount == 1 && !countsTokens
    }

    /// The conversation so far and the turn that continues it; nil where no process could go on with it.
    public var liveSplit: (history: ArraySlice<Turn>, new: Turn)? {
        guard allowsLive, let new = turns.last, new.role == .user, let last = turns.dropLast().last,
            last.role == .assistant
        else { return nil }
        let calls = last.blocks.compactMap { $0["type"] == "tool_use" ? $0["id"]?.stringValue : nil }
        return canResume(openCalls: calls) ? (turns.dropLast(), new) : nil
    }

    /// Whether the last turn can go on in a process that waits for the results of these calls, or for none.
    ///
    /// The CLI must hand each result on as it is, it does so in the order of the calls, and it takes nothing behind them.
    public func canResume(openCalls: [String]) -> Bool {
        guard let blocks = turns.last?.blocks, turns.last?.role == .user, !blocks.isEmpty else { return false }
        guard !openCalls.isEmpty else { return !blocks.contains { $0["type"] == "tool_result" } }
        return blocks.map { $0["tool_use_id"]?.stringValue ?? "" } == openCalls
            && blocks.allSatisfy { LiveResults.parts(of: $0) != nil }
    }

    /// The turns with the answer: the conversation that a process knows which has given it.
    public func turns(with answer: Answer) -> [Turn] { conversation(with: answer).turns }
}
