/// What a reply of `POST /api/run` has that the run itself does not know.
public struct DirectContext: Sendable, Equatable {
    /// The run's id.
    public var id: String
    /// The public id of the session that keeps the run; nil for none.
    public var sessionID: String?
    /// Where the tools work.
    public var workingDirectory: String

    /// A context.
    public init(id: String, sessionID: String?, workingDirectory: String) {
        self.id = id
        self.sessionID = sessionID
        self.workingDirectory = workingDirectory
    }

    /// The session's id, or null.
    var sessionJSON: JSONValue { sessionID.map { .string($0) } ?? .null }
}

/// Writes the reply of `POST /api/run`.
public enum DirectReply {
    /// The whole reply.
    ///
    /// - Parameter answer: With the CLI's report in it.
    public static func whole(_ answer: Answer, context: DirectContext, duration: Duration) -> JSONValue {
        let (seconds, attoseconds) = duration.components
        let summary = answer.summary
        let result = summary?.result ?? ""
        return [
            "id": .string(context.id), "result": .string(result.isEmpty ? answer.lastMessageText : result),
            "sessionId": context.sessionJSON,
            "durationMs": .integer(Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000)),
            "model": .string(answer.model), "stopReason": .string(stopReason(answer)),
            "turns": .integer(answer.messageCount), "workingDirectory": .string(context.workingDirectory),
            "usage": (summary?.usage ?? answer.usage).directJSON,
            "costUsd": summary?.costUSD.map { .number("\($0)") } ?? .null,
            "toolsUsed": .array(
                answer.toolsUsed.map { ["name": .string($0.name), "count": .integer($0.count)] }),
            "permissionDenials": .array((summary?.denials ?? []).map(denial)),
            "structuredOutput": summary?.structuredOutput ?? .null,
        ]
    }

    /// What is kept of a failure: the `error` object of a refusal.
    public static func error(_ error: APIError) -> JSONValue {
        Dialect.direct.errorBody(error, requestID: "")["error"] ?? [:]
    }

    /// Why the run ended: a limit of the caller's, or why the model's last message did.
    static func stopReason(_ answer: Answer) -> String {
        switch answer.summary?.ending {
        case "error_max_turns": "max_turns"
        case "error_max_budget_usd": "max_budget"
        // The model's last word was to call the tool for it.
        case _ where answer.summary?.structuredOutput != nil: StopReason.endTurn.anthropicName
        default: answer.stopReason.anthropicName
        }
    }

    /// A denial of the CLI's report in this API's words.
    private static func denial(_ denial: JSONValue) -> JSONValue {
        [
            "tool": denial["tool_name"] ?? .null, "toolUseId": denial["tool_use_id"] ?? .null,
            "input": denial["tool_input"] ?? .null,
        ]
    }
}

extension TokenUsage {
    /// `usage` of the direct API.
    var directJSON: JSONValue {
        [
            "inputTokens": .integer(input), "outputTokens": .integer(output), "cacheReadTokens": .integer(cacheRead),
            "cacheCreationTokens": .integer(cacheCreation), "thinkingTokens": .integer(thinking),
        ]
    }
}
