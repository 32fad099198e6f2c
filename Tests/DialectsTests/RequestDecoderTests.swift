import Dialects
import Testing

/// What holds for every dialect's decoder.
@Suite struct RequestDecoderTests {
    private static let kinds: [JSONValue] = [true, 1, 1.5, "text", [], [1], ["a"], [:], ["a": 1]]

    @Test(arguments: RequestDecoder.all)
    func `the smallest request is taken`(_ decoder: RequestDecoder) throws {
        let request = try decoder.decode(decoder.body)
        #expect(request.turns == [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
        #expect(request.system == [])
        #expect(!request.isStreaming)
        #expect(request.ignoredParameters == [])
    }

    @Test(arguments: RequestDecoder.all, ["null", "true", "1", "\"x\"", "[]"])
    func `a body that is no object is refused`(_ decoder: RequestDecoder, _ body: String) throws {
        let body = try json(body)
        let error = try #require(throws: APIError.self) { try decoder.decode(body) }
        #expect(error.kind == .invalidRequest)
        #expect(error.parameter == nil)
        #expect(error.message.contains("must be an object, not \(body.kindDescription)"))
    }

    @Test(arguments: RequestDecoder.all)
    func `an unknown parameter is named and changes nothing`(_ decoder: RequestDecoder) throws {
        let request = try decoder.with("some_new_thing", ["a": 1])
        #expect(request.ignoredParameters == ["some_new_thing"])
        #expect(try decoder.with("some_new_thing", nil) == decoder.decode(decoder.body))
    }

    @Test(arguments: RequestDecoder.all)
    func `a member that is null counts as missing`(_ decoder: RequestDecoder) throws {
        for name in ["model", "stream", "tools", "metadata", "workingDirectory", "temperature"] {
            #expect(try decoder.with(name, .null).turns == decoder.decode(decoder.body).turns)
        }
        #expect(try decoder.with("some_new_thing", .null).ignoredParameters == [])
    }

    /// Fields of every dialect with the kinds that they take; all others must be refused, naming the field.
    @Test(
        arguments: [
            (RequestDecoder.openAI, "model", ["a string"]), (.openAI, "messages", ["an array"]),
            (.openAI, "stream", ["a boolean"]),
            (.openAI, "stream_options", ["an object"]), (.openAI, "max_tokens", ["a number"]),
            (.openAI, "max_completion_tokens", ["a number"]), (.openAI, "temperature", ["a number"]),
            (.openAI, "top_p", ["a number"]), (.openAI, "frequency_penalty", ["a number"]),
            (.openAI, "presence_penalty", ["a number"]), (.openAI, "n", ["a number"]), (.openAI, "seed", ["a number"]),
            (.openAI, "top_logprobs", ["a number"]), (.openAI, "stop", ["a string", "an array"]),
            (.openAI, "user", ["a string"]), (.openAI, "service_tier", ["a string"]),
            (.openAI, "reasoning_effort", ["a string"]), (.openAI, "logprobs", ["a boolean"]),
            (.openAI, "store", ["a boolean"]),
            (.openAI, "parallel_tool_calls", ["a boolean"]), (.openAI, "metadata", ["an object"]),
            (.openAI, "logit_bias", ["an object"]), (.openAI, "tools", ["an array"]),
            (.openAI, "functions", ["an array"]),
            (.openAI, "response_format", ["an object"]),
            (.anthropic, "model", ["a string"]), (.anthropic, "messages", ["an array"]),
            (.anthropic, "max_tokens", ["a number"]),
            (.anthropic, "system", ["a string", "an array"]), (.anthropic, "stream", ["a boolean"]),
            (.anthropic, "temperature", ["a number"]), (.anthropic, "top_p", ["a number"]),
            (.anthropic, "top_k", ["a number"]),
            (.anthropic, "stop_sequences", ["an array"]), (.anthropic, "metadata", ["an object"]),
            (.anthropic, "service_tier", ["a string"]), (.anthropic, "tools", ["an array"]),
            (.anthropic, "tool_choice", ["an object"]), (.anthropic, "thinking", ["an object"]),
            (.direct, "prompt", ["a string", "an array"]), (.direct, "model", ["a string"]),
            (.direct, "allowedTools", ["an array"]), (.direct, "disallowedTools", ["an array"]),
            (.direct, "workingDirectory", ["a string"]), (.direct, "sessionId", ["a string"]),
            (.direct, "stream", ["a boolean"]), (.direct, "background", ["a boolean"]),
            (.direct, "fork", ["a boolean"]), (.direct, "ephemeral", ["a boolean"]), (.direct, "effort", ["a string"]),
            (.direct, "permissionMode", ["a string"]), (.direct, "addDirs", ["an array"]),
            (.direct, "systemPrompt", ["a string"]), (.direct, "appendSystemPrompt", ["a string"]),
            (.direct, "schema", ["an object"]), (.direct, "maxTurns", ["a number"]),
            (.direct, "maxBudgetUsd", ["a number"]), (.direct, "timeoutMs", ["a number"]),
            (.direct, "mcpServers", ["an object"]), (.openAI, "session_id", ["a string"]),
            (.anthropic, "session_id", ["a string"]),
        ] as [(RequestDecoder, String, [String])])
    func `a field of the wrong type is named`(_ decoder: RequestDecoder, _ field: String, _ taken: [String]) throws {
        for value in Self.kinds where !taken.contains(value.kindDescription) {
            let error = try decoder.error(with: field, value)
            #expect(error.kind == .invalidRequest)
            #expect(error.parameter == field, "\(text(value))")
            #expect(error.message.contains("`\(field)`"))
        }
    }

    /// Accepted values, which change nothing but what is asked.
    @Test(
        arguments: [
            (RequestDecoder.openAI, "temperature", [0, 2, 0.5]), (.openAI, "top_p", [0, 1]),
            (.openAI, "frequency_penalty", [-2, 2]),
            (.openAI, "presence_penalty", [-2, 2]), (.openAI, "n", [1]), (.openAI, "seed", [-1, 0]),
            (.openAI, "stop", ["x", ["x", "y"], []]), (.openAI, "max_tokens", [1, .number("3.0")]),
            (.openAI, "max_completion_tokens", [1]), (.openAI, "tools", [[]]), (.openAI, "functions", [[]]),
            (.openAI, "response_format", [["type": "text"]]), (.openAI, "metadata", [["a": "b"]]),
            (.openAI, "logit_bias", [[:]]),
            (.openAI, "tool_choice", ["none", "auto"]), (.openAI, "parallel_tool_calls", [true]),
            (.openAI, "store", [false]),
            (.anthropic, "temperature", [0, 1]), (.anthropic, "top_p", [0.5]), (.anthropic, "top_k", [5]),
            (.anthropic, "stop_sequences", [[], ["x"]]), (.anthropic, "metadata", [["user_id": "u"]]),
            (.anthropic, "service_tier", ["auto"]), (.anthropic, "tools", [[]]),
            (.anthropic, "tool_choice", [["type": "none"]]),
            (.anthropic, "thinking", [["type": "disabled"]]), (.anthropic, "system", ["", [], "x"]),
            (.direct, "allowedTools", [[], ["Bash"], ["Bash(git *)", "Read"]]), (.direct, "stream", [false, true]),
            (.direct, "workingDirectory", ["/srv/x"]), (.direct, "effort", ["low", "max"]),
            (.direct, "maxTurns", [1, 500]), (.direct, "maxBudgetUsd", [0.01, 1, 1_000_000]),
            (.direct, "timeoutMs", [1000, 600_000, .number("5e3")]), (.direct, "background", [true, false]),
            (.direct, "ephemeral", [true, false]), (.direct, "fork", [false]), (.direct, "sessionId", ["any"]),
            (.direct, "permissionMode", ["default", "acceptEdits", "plan", "dontAsk"]),
            (.direct, "addDirs", [[], ["/srv/a", "/srv/b c"]]), (.direct, "mcpServers", [[:]]),
            (.direct, "schema", [["type": "object"], [:]]), (.direct, "systemPrompt", ["x"]),
            (.direct, "disallowedTools", [[], ["Bash"], ["Bash(rm *)", "Write(./a/**)", "Read(//etc/**)"]]),
            (.openAI, "session_id", ["s"]), (.anthropic, "session_id", ["s"]),
        ] as [(RequestDecoder, String, [JSONValue])])
    func `a good value is taken`(_ decoder: RequestDecoder, _ field: String, _ values: [JSONValue]) throws {
        for value in values {
            #expect(try decoder.with(field, value).turns == decoder.decode(decoder.body).turns, "\(text(value))")
        }
    }

    /// Values of the right type that make no sense, and what can't be served.
    @Test(
        arguments: [
            (RequestDecoder.openAI, "temperature", [2.1, -0.1], "temperature"), (.openAI, "top_p", [1.1], "top_p"),
            (.openAI, "frequency_penalty", [-2.1], "frequency_penalty"),
            (.openAI, "presence_penalty", [3], "presence_penalty"),
            (.openAI, "n", [0, -1, 1.5], "n"), (.openAI, "seed", [1.5], "seed"), (.openAI, "stop", [[1]], "stop"),
            (.openAI, "max_tokens", [0, -1, 1.5, .number("1e400")], "max_tokens"),
            (.openAI, "max_completion_tokens", [0], "max_completion_tokens"), (.openAI, "messages", [[]], "messages"),
            (.openAI, "tools", [[["type": "function"]]], "tools[0].function"),
            (.openAI, "functions", [[[:]]], "functions[0].name"),
            (.openAI, "response_format", [["type": "xml"], ["type": 1], [:]], "response_format.type"),
            (.openAI, "stream_options", [["include_usage": "yes"]], "stream_options.include_usage"),
            (.anthropic, "temperature", [1.1, -1], "temperature"), (.anthropic, "top_p", [2], "top_p"),
            (.anthropic, "top_k", [0.5], "top_k"), (.anthropic, "stop_sequences", [[1]], "stop_sequences"),
            (.anthropic, "max_tokens", [0, -5, 2.5], "max_tokens"), (.anthropic, "messages", [[]], "messages"),
            (.anthropic, "tools", [[["name": "x"]]], "tools[0].input_schema"),
            (.anthropic, "thinking", [["type": "enabled"]], "thinking.budget_tokens"),
            (.anthropic, "thinking", [[:], ["type": 1]], "thinking.type"),
            (.anthropic, "system", [[1]], "system[0]"), (.anthropic, "system", [[["type": "image"]]], "system[0].type"),
            (.anthropic, "system", [[["type": "text"]]], "system[0].text"),
            (.direct, "prompt", ["", " \n\u{3000}", []], "prompt"), (.direct, "prompt", [["x"]], "prompt[0]"),
            (.direct, "prompt", [[["type": "tool_result", "tool_use_id": "t"]]], "prompt[0].type"),
            (.direct, "prompt", [[["type": "text", "text": " "]]], "prompt[0].text"),
            (.direct, "prompt", [[["type": "image", "source": ["type": "file"]]]], "prompt[0].source.type"),
            (.direct, "effort", ["none", "extreme"], "effort"), (.direct, "fork", [true], "fork"),
            (.direct, "permissionMode", ["yolo", "Plan"], "permissionMode"),
            (.direct, "addDirs", [["x"], ["/a/../b"], ["/a\0"]], "addDirs[0]"),
            (.direct, "addDirs", [["/a", "b"]], "addDirs[1]"), (.direct, "addDirs", [[1]], "addDirs"),
            (.direct, "systemPrompt", ["", " "], "systemPrompt"),
            (.direct, "appendSystemPrompt", [""], "appendSystemPrompt"),
            (.direct, "schema", [["type": "array"]], "schema.type"),
            (.direct, "schema", [["anyOf": []]], "schema.anyOf"), (.direct, "maxTurns", [0, -1, 1.5], "maxTurns"),
            (.direct, "maxBudgetUsd", [0, -1, 1_000_001, .number("1e400")], "maxBudgetUsd"),
            (.direct, "timeoutMs", [999, 600_001, 1500.5], "timeoutMs"),
            (
                .direct, "disallowedTools",
                [["bash"], ["Bash("], ["mcp__x"], ["Read(etc)"], ["Write(~/x)"], ["Edit(./../x)"]], "disallowedTools[0]"
            ),
            (.openAI, "session_id", [" "], "session_id"), (.anthropic, "session_id", [""], "session_id"),
            (.direct, "allowedTools", [[1]], "allowedTools"),
            (
                .direct, "allowedTools",
                [
                    ["bash"], ["Nope"], [""], ["Bash("], ["Bash()"], ["Bash(x"], ["Bash x"], ["--dangerously"],
                    ["Bash,Write"],
                    ["Bash(a\nb)"], [" Bash"], ["mcp__x"],
                ], "allowedTools[0]"
            ),
            (.direct, "allowedTools", [["Read", "Nope"]], "allowedTools[1]"),
        ] as [(RequestDecoder, String, [JSONValue], String)])
    func `a bad value is named`(
        _ decoder: RequestDecoder, _ field: String, _ values: [JSONValue], _ parameter: String
    ) throws {
        for value in values {
            let error = try decoder.error(with: field, value)
            #expect(error.kind == .invalidRequest)
            #expect(error.parameter == parameter, "\(text(value))")
        }
    }

    @Test(arguments: [
        (RequestDecoder.openAI, "messages"), (.anthropic, "messages"), (.anthropic, "max_tokens"), (.direct, "prompt"),
    ])
    func `a missing field is named`(_ decoder: RequestDecoder, _ field: String) throws {
        for value in [nil, JSONValue.null] {
            let error = try decoder.error(with: field, value)
            #expect(error.parameter == field)
            #expect(error.message == "`\(field)` is missing.")
        }
    }

    /// Messages of both chat dialects that are refused, with the parameter that is named.
    @Test(arguments: [
        (#"[1]"#, "messages[0]"), (#"[null]"#, "messages[0]"), (#"[{}]"#, "messages[0].role"),
        (#"[{"role":1,"content":"x"}]"#, "messages[0].role"),
        (#"[{"role":"robot","content":"x"}]"#, "messages[0].role"),
        (#"[{"role":"User","content":"x"}]"#, "messages[0].role"), (#"[{"role":"user"}]"#, "messages[0].content"),
        (#"[{"role":"user","content":null}]"#, "messages[0].content"),
        (#"[{"role":"user","content":1}]"#, "messages[0].content"),
        (#"[{"role":"user","content":{}}]"#, "messages[0].content"),
        (#"[{"role":"user","content":""}]"#, "messages[0].content"),
        (#"[{"role":"user","content":" \n"}]"#, "messages[0].content"),
        (#"[{"role":"user","content":[]}]"#, "messages[0].content"),
        (#"[{"role":"user","content":["x"]}]"#, "messages[0].content[0]"),
        (#"[{"role":"user","content":[{}]}]"#, "messages[0].content[0].type"),
        (#"[{"role":"user","content":[{"type":1}]}]"#, "messages[0].content[0].type"),
        (#"[{"role":"user","content":[{"type":"video"}]}]"#, "messages[0].content[0].type"),
        (#"[{"role":"user","content":[{"type":"text"}]}]"#, "messages[0].content[0].text"),
        (#"[{"role":"user","content":[{"type":"text","text":1}]}]"#, "messages[0].content[0].text"),
        (
            #"[{"role":"user","content":"x"},{"role":"user","content":[{"type":"text","text":"x"},{"type":"text","text":[]}]}]"#,
            "messages[1].content[1].text"
        ),
        (#"[{"role":"assistant","content":"x"}]"#, "messages"),
        (#"[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]"#, "messages"),
    ])
    func `a bad message is named`(_ messages: String, _ parameter: String) throws {
        for decoder in [RequestDecoder.openAI, .anthropic] {
            let error = try decoder.error(with: "messages", json(messages))
            #expect(error.kind == .invalidRequest)
            #expect(error.parameter == parameter, "\(decoder.dialect)")
        }
    }

    @Test(arguments: RequestDecoder.all)
    func `an error never quotes the caller's text`(_ decoder: RequestDecoder) throws {
        let secret: JSONValue = "my secret prompt"
        for field in ["stream", "messages", "max_tokens", "temperature", "allowedTools", "metadata"] {
            do throws(APIError) { _ = try decoder.with(field, secret) } catch {
                #expect(!error.message.contains("secret"))
            }
        }
        if decoder.dialect != .direct {
            let error = try decoder.error(with: "messages", [["role": secret, "content": secret]])
            #expect(!error.message.contains("secret"))
        }
    }
}

@Suite struct ChatCompletionsRequestTests {
    private func decode(_ messages: String) throws -> RunRequest {
        try RequestDecoder.openAI.with("messages", json(messages))
    }

    @Test func `system and developer messages become the system prompt, wherever they stand`() throws {
        let request = try decode(
            #"[{"role":"system","content":"A"},{"role":"user","content":"x"},{"role":"developer","content":[{"type":"text","text":"B"},{"type":"text","text":"C"}]},{"role":"system","content":" "}]"#
        )
        #expect(request.system == ["A", "B\nC"])
        #expect(request.turns.count == 1)
    }

    @Test func `history keeps its roles and neighbours of one role become one turn`() throws {
        let request = try decode(
            #"[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"b"},{"type":"text","text":""}]},{"role":"assistant","content":"c"},{"role":"user","name":"n","content":"d"}]"#
        )
        #expect(request.turns.map(\.role) == [.user, .assistant, .user])
        #expect(request.turns[0].blocks == [RunRequest.Turn.text("a"), RunRequest.Turn.text("b")])
    }

    @Test(arguments: [
        #"{"role":"assistant"}"#, #"{"role":"assistant","content":null}"#, #"{"role":"assistant","content":""}"#,
        #"{"role":"assistant","content":[]}"#,
    ])
    func `an assistant message without text is left out`(_ message: String) throws {
        let request = try decode(#"[{"role":"user","content":"a"},\#(message),{"role":"user","content":"b"}]"#)
        #expect(request.turns.count == 1)
    }

    @Test func `a refusal is the assistant's text`() throws {
        let request = try decode(
            #"[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"refusal","refusal":"No."}]},{"role":"user","content":"b"}]"#
        )
        #expect(request.turns[1].blocks == [RunRequest.Turn.text("No.")])
    }

    @Test(arguments: [
        (#"{"role":"tool","tool_call_id":"x","content":"y"}"#, "messages"),
        (#"{"role":"function","name":"x","content":"y"}"#, "messages"),
        (#"{"role":"tool","content":"y"}"#, "messages[0].tool_call_id"),
        (#"{"role":"assistant","tool_calls":[{}]}"#, "messages[0].tool_calls[0].id"),
        (#"{"role":"assistant","tool_calls":[{"type":"custom"}]}"#, "messages[0].tool_calls[0].type"),
        (#"{"role":"assistant","tool_calls":[{"id":"a"}]}"#, "messages[0].tool_calls[0].function"),
        (#"{"role":"assistant","function_call":{}}"#, "messages[0].function_call.name"),
        (#"{"role":"user","content":[{"type":"image_url"}]}"#, "messages[0].content[0].image_url"),
        (#"{"role":"user","content":[{"type":"image_url","image_url":{}}]}"#, "messages[0].content[0].image_url.url"),
        (
            #"{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}"#,
            "messages[0].content[0].image_url.url"
        ),
        (
            #"{"role":"user","content":[{"type":"image_url","image_url":"data:image/png;base64,AAAA"}]}"#,
            "messages[0].content[0].image_url"
        ),
        (
            #"{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}"#,
            "messages[0].content[0].file.file_id"
        ),
        (#"{"role":"user","content":[{"type":"file","file":{}}]}"#, "messages[0].content[0].file.file_data"),
        (#"{"role":"system","content":[{"type":"image_url"}]}"#, "messages[0].content[0].type"),
        (#"{"role":"user","name":1,"content":"x"}"#, "messages[0].name"),
        (#"{"role":"system"}"#, "messages[0].content"),
    ])
    func `what is not served is refused by name`(_ message: String, _ parameter: String) throws {
        let error = try #require(throws: APIError.self) { try decode("[\(message)]") }
        #expect(error.parameter == parameter)
    }

    @Test func `the newer name of the token limit wins`() throws {
        var body = try #require(RequestDecoder.openAI.body.objectValue)
        body["max_tokens"] = 5
        #expect(try ChatCompletionsRequest.decode(.object(body)).maxOutputTokens == 5)
        body["max_completion_tokens"] = 7
        #expect(try ChatCompletionsRequest.decode(.object(body)).maxOutputTokens == 7)
    }

    @Test func `streams and their usage are asked for`() throws {
        #expect(try RequestDecoder.openAI.with("stream", true).isStreaming)
        #expect(try RequestDecoder.openAI.with("stream_options", ["include_usage": true]).reply.includesUsage)
        #expect(try !RequestDecoder.openAI.with("stream_options", [:]).reply.includesUsage)
    }

    @Test func `parameters without effect are reported`() throws {
        let body = try json(
            #"{"messages":[{"role":"user","content":"x"}],"temperature":1,"seed":1,"stop":"x","user":"u","stream":false,"n":1}"#
        )
        #expect(try ChatCompletionsRequest.decode(body).ignoredParameters == ["temperature", "seed", "user"])
    }
}

@Suite struct MessagesRequestTests {
    @Test(
        arguments: [
            ("\"A\"", ["A"]), ("\"\"", []), ("[]", []),
            (#"[{"type":"text","text":"A","cache_control":{"type":"ephemeral"}}]"#, ["A"]),
            (#"[{"type":"text","text":"A"},{"type":"text","text":" "},{"type":"text","text":"B"}]"#, ["A", "B"]),
        ] as [(String, [String])])
    func `system prompts are a string or blocks`(_ system: String, _ expected: [String]) throws {
        #expect(try RequestDecoder.anthropic.with("system", json(system)).system == expected)
    }

    @Test func `history keeps its roles`() throws {
        let request = try RequestDecoder.anthropic.with(
            "messages",
            json(
                #"[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"}]},{"role":"user","content":"c"}]"#
            ))
        #expect(request.turns.map(\.role) == [.user, .assistant, .user])
    }

    @Test(arguments: [#"{"role":"system","content":"x"}"#, #"{"role":"tool","content":"x"}"#])
    func `only user and assistant are roles`(_ message: String) throws {
        let error = try RequestDecoder.anthropic.error(with: "messages", json("[\(message)]"))
        #expect(error.parameter == "messages[0].role")
    }

    @Test func `the token limit is the answer's`() throws {
        #expect(try RequestDecoder.anthropic.decode(RequestDecoder.anthropic.body).maxOutputTokens == 10)
    }
}
