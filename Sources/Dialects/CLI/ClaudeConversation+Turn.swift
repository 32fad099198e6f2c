extension ClaudeConversation {
    /// How a run ends that has reached a limit of its caller's: it is an answer, and the conversation goes on from there.
    private static let limits: Set<String> = ["error_max_turns", "error_max_budget_usd"]

    /// The CLI has begun the turn.
    mutating func begun(_ line: JSONValue) -> [Action] {
        reader.model = line["model"]?.stringValue ?? ""
        guard !turn.isResumed else { return [] }
        // The CLI says nothing of a schema that it can't use: it leaves the tool out.
        if request.outputSchema != nil,
            line["tools"]?.arrayValue?.contains(.string(ToolNames.structuredOutput)) != true
        {
            isCut = true
            return fail(
                .invalid(
                    request.outputSchemaParameter,
                    "`\(request.outputSchemaParameter ?? "schema")` is no JSON Schema that can be checked: see whether each "
                        + "`type`, `$ref` and `pattern` in it is right (JSON Schema draft 7)."))
        }
        sessionID = line["session_id"]?.stringValue ?? ""
        return [.event(.started(sessionID: sessionID, model: reader.model))]
    }

    /// A piece of the model's message.
    mutating func streamEvent(_ line: JSONValue) -> [Action] {
        // A subagent's words are not the answer.
        guard state == .running, !turn.isAnswered, let event = line["event"], line["parent_tool_use_id"]?.isNull ?? true
        else { return [] }
        var events: [RunEvent] = []
        let verdict = reader.receive(event, into: &events)
        return tell(events, verdict)
    }

    /// A piece of the model's message, read without the rest of its line.
    mutating func delta(_ line: DeltaLine) -> [Action] {
        var events: [RunEvent] = []
        let verdict = reader.receive(line, into: &events)
        return tell(events, verdict)
    }

    private mutating func tell(_ events: [RunEvent], _ verdict: MessageReader.Verdict) -> [Action] {
        collect(events)
        let actions = events.map { Action.event($0) }
        switch verdict {
        case .goesOn: return actions
        case .answered:
            turn.isAnswered = true
            return actions
        case .cut:
            turn.isAnswered = true
            isCut = true
            isContinuable = waitsForResults
            state = .ended
            return actions + [.end]
        case .broken:
            isCut = true
            return fail(Self.brokenStream)
        }
    }

    /// A whole message of the model's, of which the stream has told already, or what the CLI's tools answered.
    mutating func message(_ line: JSONValue) -> [Action] {
        guard state == .running, line["parent_tool_use_id"]?.isNull ?? true else { return [] }
        guard request.isAgent else { return record(line) }
        turn.lastMessageID = line["uuid"]?.stringValue ?? turn.lastMessageID
        guard line["type"] == "user" else { return [] }
        return (line["message"]?["content"]?.arrayValue ?? []).filter { block in
            block["type"] == "tool_result" && !reader.isStructuredCall(block["tool_use_id"]?.stringValue)
        }.map { .event(.toolResult($0)) }
    }

    /// The CLI's report of a turn, or its acknowledgement of a line of history.
    mutating func result(_ line: JSONValue) -> [Action] {
        if case .feeding(let next) = state { return feed(from: next) }
        guard state == .running else { return [] }
        let result = line["result"]?.stringValue ?? ""
        let finished = Action.event(.finished(summary(line, result: result)))
        let subtype = line["subtype"]?.stringValue
        if turn.isAnswered {
            isContinuable = subtype == "success" && line["is_error"]?.boolValue == false && hasSaidAll
            state = .ended
            return [finished, .end]
        }
        if request.outputSchema != nil, subtype == "error_max_structured_output_retries" {
            return fail(Self.unstructured)
        }
        if request.isAgent, Self.limits.contains(subtype ?? "") {
            state = .ended
            return [finished, .event(.answered), .end]
        }
        if line["is_error"]?.boolValue ?? (subtype != "success") {
            return fail(ClaudeFailure.error(result: line, model: request.model))
        }
        let usage = TokenUsage(line["usage"])
        let output = line["structured_output"].flatMap { $0.isNull ? Optional<JSONValue>.none : $0 }
        guard request.outputSchema == nil || output != nil else { return fail(Self.unstructured) }
        if request.isAgent {
            // The report is part of the answer.
            state = .ended
            return [finished, .event(.answered), .end]
        }
        // For an answer of which no message was seen.
        let id = "msg_" + (line["uuid"]?.stringValue ?? "").filter { $0 != "-" }
        let events: [RunEvent]
        if let output, request.outputSchema != nil {
            events = reader.structuredAnswer(output, id: id, usage: usage)
        } else {
            // The whole answer came without a stream: the CLI fell back to a plain call after its stream broke off.
            guard !result.isEmpty else {
                return fail(
                    APIError(.upstream, "The model's answer was empty. Try again.", cause: "result without text"))
            }
            let reason = line["stop_reason"]?.stringValue.map { StopReason($0) }
            guard let rest = reader.rest(of: result, id: id, stopReason: reason, usage: usage) else {
                return fail(Self.brokenStream)
            }
            events = rest
        }
        state = .ended
        return events.map { .event($0) } + [finished, .end]
    }

    private static let brokenStream = APIError(
        .upstream, "The upstream API's stream broke off in the middle of the answer. Send the request again.",
        cause: "the CLI began the message anew")

    private static let unstructured = APIError(
        .upstream,
        "The model did not give an answer that fits the JSON Schema. Try again, or ask for something simpler.",
        cause: "no structured output", isTransient: false)

    private mutating func summary(_ line: JSONValue, result: String) -> RunSummary {
        var usage = TokenUsage(line["usage"])
        // The report of a run that has spent its budget counts none (seen with CLI 2.1.251 and 2.1.332).
        if usage.total == 0 { usage = reader.endedUsage }
        // To the CLI the messages before the results of tools belong to one turn with those behind; their callers have theirs.
        if turn.goesOn { usage = turn.answer.usage }
        var summary = RunSummary(
            result: result, usage: usage, costUSD: cost(line),
            turnCount: line["num_turns"]?.intValue ?? 0, sessionID: line["session_id"]?.stringValue ?? "")
        summary.ending = line["subtype"]?.stringValue ?? summary.ending
        summary.lastMessageID = turn.lastMessageID
        summary.denials = line["permission_denials"]?.arrayValue ?? []
        if let output = line["structured_output"], !output.isNull { summary.structuredOutput = output }
        return summary
    }

    /// The turn's price.
    ///
    /// The total counts the earlier turns of the process, and with CLI 2.1.332 those of the conversation that it goes on with;
    /// that CLI has the turn's own beside it.
    private mutating func cost(_ line: JSONValue) -> Double? {
        if let models = line["model_usage_since_last_result"]?.objectValue?.members, !models.isEmpty {
            return models.reduce(0) { $0 + ($1.value["costUSD"]?.doubleValue ?? 0) }
        }
        guard let total = line["total_cost_usd"]?.doubleValue else { return nil }
        defer { reportedUSD = total }
        return max(0, total - reportedUSD)
    }
}
