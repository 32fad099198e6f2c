import Testing

@testable import Dialects

/// A CLI in a few lines, as far as the order of its lines and what it tells the model go; the real one's behaviour is in
/// the transcripts.
struct FakeCLI {
    /// What the model says when it is asked.
    enum Speech {
        case text(String)
        case calls([(id: String, name: String, input: String)])
    }

    /// What the model was told, each time it was asked.
    private(set) var prompts: [JSONValue] = []
    private(set) var hasFailed = false
    private var system = ""
    private var settings = JSONObject()
    private var environment = JSONObject([("ANTHROPIC_BASE_URL", "http://upstream"), ("CLAUDE_CODE_MAX_RETRIES", "3")])
    private var thinking: JSONValue = nil
    private var messages: [(message: JSONValue, uuid: String?)] = []
    private var calls: [(id: String, result: JSONValue?)] = []
    /// Results as they come.
    private var results: [JSONValue] = []
    private var hasTools = false
    /// What the model says next.
    var speech = Speech.text("")

    init() {}

    /// Takes a line and gives what is written upon it.
    mutating func take(_ text: String) throws -> [JSONValue] {
        let line = try json(text)
        switch line["type"]?.stringValue {
        case "control_request": return control(line["request"] ?? nil, id: line["request_id"] ?? nil)
        case "control_response": return try answered(line["response"] ?? nil)
        case "user":
            messages.append((Self.plain(line["message"] ?? nil), line["uuid"]?.stringValue))
            return line["shouldQuery"] == false
                ? [["type": "result", "subtype": "success", "num_turns": 0]] : ask(true)
        case "assistant":
            var message = try #require(line["message"]?.objectValue)
            message["model"] = nil
            messages.append((Self.plain(.object(message)), nil))
            return []
        default:
            hasFailed = true
            return []
        }
    }

    private mutating func control(_ request: JSONValue, id: JSONValue) -> [JSONValue] {
        var response: JSONValue = [:]
        switch request["subtype"]?.stringValue {
        case "initialize":
            let texts = (request["systemPrompt"]?.arrayValue ?? []).compactMap(\.stringValue).filter { !$0.isEmpty }
            system = texts.joined(separator: "\n\n")
            response = ["claude_code_version": "2.1.332"]
            hasTools = request["sdkMcpServers"] != nil
        case "set_model":
            // It knows the model also where the settings don't name it.
            settings["model"] = request["model"]
            if let prompt = request["system_prompt"]?.stringValue { system = prompt }
        case "apply_flag_settings":
            for member in request["settings"]?.objectValue?.members ?? [] where member.key != "env" {
                settings[member.key] = member.value
            }
            for member in request["settings"]?["env"]?.objectValue?.members ?? [] {
                environment[member.key] = member.value.isNull ? nil : member.value
            }
        case "set_max_thinking_tokens": thinking = request["thinking_display"] ?? nil
        case "mcp_set_servers": hasTools = request["servers"] != [:]
        case "rewind_conversation":
            let uuid = request["target_message_uuid"]?.stringValue
            let place = messages.firstIndex { $0.uuid == uuid }
            if let place { messages.removeSubrange(place...) }
            response = ["rewound": .bool(place != nil)]
        default: hasFailed = true
        }
        let answer: JSONValue = [
            "type": "control_response", "response": ["subtype": "success", "request_id": id, "response": response],
        ]
        let asks = request["subtype"] == "mcp_set_servers" && hasTools || request["sdkMcpServers"] != nil
        return
            (asks
            ? [
                Self.mcp("init", ["id": 0, "method": "initialize"]),
                Self.mcp("list", ["id": 1, "method": "tools/list"]),
            ] : [])
            + [answer]
    }

    private static func mcp(_ id: String, _ message: JSONValue) -> JSONValue {
        [
            "type": "control_request", "request_id": .string(id),
            "request": ["subtype": "mcp_message", "server_name": "client", "message": message],
        ]
    }

    /// The result of a call, by the id of the request for it.
    private mutating func answered(_ response: JSONValue) throws -> [JSONValue] {
        let id = response["request_id"]?.stringValue ?? ""
        guard let place = calls.firstIndex(where: { $0.id == id }) else {
            if id != "init", id != "list" { hasFailed = true }
            return []
        }
        guard calls[place].result == nil else {
            hasFailed = true
            return []
        }
        let result: JSONValue = [
            "type": "tool_result", "tool_use_id": .string(id),
            "content": response["response"]?["mcp_response"]?["result"]?["content"] ?? nil,
        ]
        calls[place].result = result
        results.append(result)
        let told: JSONValue = [
            "type": "user", "message": ["role": "user", "content": [result]], "parent_tool_use_id": nil,
        ]
        guard calls.allSatisfy({ $0.result != nil }) else { return [told] }
        let message: JSONValue = ["role": "user", "content": .array(results)]
        messages.append((Self.plain(message), nil))
        calls = []
        results = []
        return [told] + ask(false)
    }

    private mutating func ask(_ isNewTurn: Bool) -> [JSONValue] {
        var lines: [JSONValue] = []
        if isNewTurn { lines.append(["type": "system", "subtype": "init", "session_id": "s", "model": "m"]) }
        let isWarming = environment["ANTHROPIC_BASE_URL"] != "http://upstream"
        if !isWarming {
            prompts.append([
                "system": .string(system), "settings": .object(settings), "env": .object(environment),
                "thinking": thinking, "tools": .bool(hasTools), "messages": .array(messages.map(\.message)),
            ])
        }
        lines.append(
            Self.event(["type": "message_start", "message": ["id": "msg", "model": "m", "usage": ["input_tokens": 3]]]))
        var content: [JSONValue] = []
        let speech =
            isWarming
            ? isNewTurn ? .calls([(WarmupUpstream.callID, "is_ready", "{}")]) : .text("Ready.") : self.speech
        switch speech {
        case .text(let words):
            let block: JSONValue = ["type": "text", "text": .string(words)]
            lines += Self.block(["type": "text", "text": ""], ["type": "text_delta", "text": .string(words)], block)
            content = [block]
            lines += Self.end("end_turn")
            lines.append([
                "type": "result", "subtype": "success", "is_error": false, "result": .string(words), "num_turns": 1,
                "usage": ["input_tokens": 3],
            ])
        case .calls(let asked):
            for (id, name, input) in asked {
                let value = (try? json(input)) ?? [:]
                let block: JSONValue = ["type": "tool_use", "id": .string(id), "name": .string(name), "input": value]
                var start = block.objectValue ?? JSONObject()
                start["input"] = [:]
                lines += Self.block(
                    .object(start), ["type": "input_json_delta", "partial_json": .string(input)], block)
                lines.append(
                    Self.mcp(
                        id,
                        [
                            "id": .string(id), "method": "tools/call",
                            "params": ["name": .string(name), "_meta": ["claudecode/toolUseId": .string(id)]],
                        ]))
                content.append(block)
                calls.append((id, nil))
            }
            lines += Self.end("tool_use")
        }
        messages.append((Self.plain(["role": "assistant", "content": .array(content)]), nil))
        return lines
    }

    private static func event(_ event: JSONValue) -> JSONValue { ["type": "stream_event", "event": event] }

    private static func block(_ start: JSONValue, _ delta: JSONValue, _ whole: JSONValue) -> [JSONValue] {
        [
            event(["type": "content_block_start", "index": 0, "content_block": start]),
            event(["type": "content_block_delta", "index": 0, "delta": delta]),
            ["type": "assistant", "message": ["role": "assistant", "content": [whole]], "parent_tool_use_id": nil],
            event(["type": "content_block_stop", "index": 0]),
        ]
    }

    private static func end(_ reason: String) -> [JSONValue] {
        [
            event(["type": "message_delta", "delta": ["stop_reason": .string(reason)], "usage": ["output_tokens": 2]]),
            event(["type": "message_stop"]),
        ]
    }

    /// A message in which the text of a result is always a block.
    private static func plain(_ message: JSONValue) -> JSONValue {
        guard var object = message.objectValue, let blocks = object["content"]?.arrayValue else { return message }
        object["content"] = .array(
            blocks.map { block in
                guard var result = block.objectValue, let text = block["content"]?.stringValue else { return block }
                result["content"] = [RunRequest.Turn.text(text)]
                return .object(result)
            })
        return .object(object)
    }
}

/// A process with its conversation: what a responder has of it.
struct FakeProcess {
    private(set) var cli = FakeCLI()
    private var conversation: ClaudeConversation?
    private(set) var events: [RunEvent] = []
    private(set) var hasEnded = false

    /// Warms the process; false where that failed.
    mutating func warm() throws -> Bool {
        var warmup = ClaudeWarmup(upstream: "http://responder", baseURL: "http://upstream", retries: "3")
        var pending = Self.lines(warmup.start())
        while !pending.isEmpty {
            for line in try cli.take(pending.removeFirst()) {
                let bytes = JSONWriter.bytes(line)
                pending += Self.lines(warmup.receive(bytes, in: bytes.indices))
            }
        }
        return warmup.isReady
    }

    /// Begins a conversation and pumps it to its answer.
    mutating func begin(
        _ request: RunRequest, model: String?, entry: ClaudeConversation.Entry, _ speech: FakeCLI.Speech
    ) throws {
        cli.speech = speech
        var conversation = ClaudeConversation(request, model: model, resolvedModel: "m", entry: entry)
        let actions = conversation.start()
        self.conversation = conversation
        try pump(actions)
    }

    /// Goes on with the turn that continues it.
    mutating func goOn(_ request: RunRequest, _ speech: FakeCLI.Speech) throws {
        cli.speech = speech
        conversation?.park()
        events = []
        hasEnded = false
        try pump(conversation?.resume(request) ?? [])
    }

    var isContinuable: Bool { conversation?.isContinuable ?? false }
    var openCalls: [String] { conversation?.openCalls ?? [] }
    var answer: Answer { events.reduce(into: Answer()) { $0.append($1) } }

    private mutating func pump(_ actions: [ClaudeConversation.Action]) throws {
        var pending = take(actions)
        while !pending.isEmpty {
            for line in try cli.take(pending.removeFirst()) {
                let bytes = JSONWriter.bytes(line)
                pending += take(conversation?.receive(bytes, in: bytes.indices) ?? [])
            }
        }
    }

    private mutating func take(_ actions: [ClaudeConversation.Action]) -> [String] {
        for action in actions {
            switch action {
            case .event(let event): events.append(event)
            case .end: hasEnded = true
            case .write: break
            }
        }
        return Self.lines(actions)
    }

    private static func lines(_ actions: [ClaudeConversation.Action]) -> [String] {
        actions.flatMap { action -> [String] in
            guard case .write(let bytes) = action else { return [] }
            return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { String($0) }
        }
    }
}
