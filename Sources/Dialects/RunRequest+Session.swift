extension SessionWish {
    /// Whether it is a conversation that exists already.
    public var isExisting: Bool { if case .existing = self { true } else { false } }
}

extension RunRequest {
    /// Reads a chat's `session_id`.
    mutating func readSession(_ fields: FieldReader) throws(APIError) {
        guard let id = try fields.string("session_id") else { return }
        guard !id.isBlank else {
            throw .invalid("session_id", "`session_id` is blank. Leave it out, or name a session.")
        }
        session = .existing(id: id, forks: false)
    }

    /// The request as the next turn of a stored conversation.
    ///
    /// Of its own messages only those behind the last answer count: clients send the whole history, or what is new.
    ///
    /// - Throws: ``APIError`` where the result of a tool has no call, or a call no result.
    public func continuing(_ conversation: Conversation) throws(APIError) -> RunRequest {
        var whole = self
        let last = turns.lastIndex { $0.role == .assistant }
        whole.turns = conversation.turns
        for turn in turns[(last.map { $0 + 1 } ?? 0)...] { whole.append(turn.role, turn.blocks) }
        if system.isEmpty { whole.system = conversation.system }
        try whole.requireUserTurnLast()
        try whole.requireToolResults()
        if whole.tools.isEmpty {
            whole.tools = FunctionTools.historical(whole.turns)
            if !whole.tools.isEmpty { whole.toolChoice = FunctionTools.choice("none", isParallel: true) }
        }
        return whole
    }

    /// The conversation with the answer, for the turn that continues it.
    public func conversation(with answer: Answer) -> Conversation {
        var whole = RunRequest(turns: turns)
        let blocks = answer.turnBlocks
        if !blocks.isEmpty { whole.append(.assistant, blocks) }
        return Conversation(system: system, turns: whole.turns)
    }
}
