import Testing

@testable import Dialects

/// Tools, structured answers, thinking and stops in the decoders.
@Suite struct ChatCompletionsToolsTests {
    private func decode(_ members: String) throws -> RunRequest {
        var body = try #require(RequestDecoder.openAI.body.objectValue)
        for member in try #require(json("{\(members)}").objectValue).members { body[member.key] = member.value }
        return try ChatCompletionsRequest.decode(.object(body))
    }

    private static let tools =
        #""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}},{"type":"function","function":{"name":"g"}}]"#

    @Test(
        arguments: [
            ("", nil), (#","tool_choice":"auto""#, nil), (#","tool_choice":"none""#, #"{"type":"none"}"#),
            (#","tool_choice":"required""#, #"{"type":"any"}"#),
            (#","parallel_tool_calls":false"#, #"{"type":"auto","disable_parallel_tool_use":true}"#),
            (#","tool_choice":{"type":"function","function":{"name":"g"}}"#, #"{"type":"tool","name":"g"}"#),
            (
                #","tool_choice":"required","parallel_tool_calls":false"#,
                #"{"type":"any","disable_parallel_tool_use":true}"#
            ),
        ] as [(String, String?)])
    func `a choice of tools becomes the API's`(_ members: String, _ expected: String?) throws {
        let request = try decode(Self.tools + members)
        #expect(request.tools.map(\.name) == ["f", "g"])
        #expect(request.toolChoice.map { text(.object($0)) } == expected)
        #expect(request.ignoredParameters == [])
        #expect(!request.reply.usesLegacyFunctions)
    }

    @Test func `allowed tools are the only ones that are offered`() throws {
        let request = try decode(
            Self.tools
                + #","tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"g"}}]}}"#
        )
        #expect(request.tools.map(\.name) == ["g"])
        #expect(request.toolChoice.map { text(.object($0)) } == #"{"type":"any"}"#)
    }

    @Test(
        arguments: [
            ("", #"{"type":"auto","disable_parallel_tool_use":true}"#),
            (#","function_call":"none""#, #"{"type":"none"}"#),
            (#","function_call":{"name":"f"}"#, #"{"type":"tool","name":"f","disable_parallel_tool_use":true}"#),
        ])
    func `functions are tools in an older form`(_ members: String, _ expected: String) throws {
        let request = try decode(#""functions":[{"name":"f","parameters":{}}]"# + members)
        #expect(request.reply.usesLegacyFunctions)
        #expect(request.tools.map(\.name) == ["f"])
        #expect(request.toolChoice.map { text(.object($0)) } == expected)
    }

    @Test func `strict tools are named as not enforced, once`() throws {
        let strict = #"{"type":"function","function":{"name":"NAME","strict":true}}"#
        let tools = ["f", "g"].map { strict.replacing("NAME", with: $0) }.joined(separator: ",")
        #expect(try decode(#""tools":[\#(tools)]"#).ignoredParameters == ["tools.strict"])
    }

    @Test func `a forced call leaves no room for thinking`() throws {
        let request = try decode(
            Self.tools + #","tool_choice":"required","include_reasoning":true,"reasoning_effort":"high""#)
        #expect(request.thinking == .off)
        #expect(!request.reply.showsThinking)
    }

    @Test(arguments: [
        (#""tools":[1]"#, "tools[0]"), (#""tools":[{}]"#, "tools[0].type"),
        (#""tools":[{"type":"custom"}]"#, "tools[0].type"), (#""tools":[{"type":"function"}]"#, "tools[0].function"),
        (#""tools":[{"type":"function","function":{}}]"#, "tools[0].function.name"),
        (#""tools":[{"type":"function","function":{"name":"a b"}}]"#, "tools[0].function.name"),
        (#""tools":[{"type":"function","function":{"name":"f","description":1}}]"#, "tools[0].function.description"),
        (#""tools":[{"type":"function","function":{"name":"f","parameters":1}}]"#, "tools[0].function.parameters"),
        (#""tools":[{"type":"function","function":{"name":"f","strict":1}}]"#, "tools[0].function.strict"),
        (
            #""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"array"}}}]"#,
            "tools[0].function.parameters.type"
        ),
        (
            #""tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}]"#,
            "tools[1].function.name"
        ),
        (#""functions":[{"name":"f"},{"name":"f"}]"#, "functions[1].name"),
        (#""tool_choice":"required""#, "tool_choice"), (#""function_call":{"name":"f"}"#, "function_call"),
        (tools + #","tool_choice":"any""#, "tool_choice"), (tools + #","tool_choice":1"#, "tool_choice"),
        (tools + #","tool_choice":{"type":"x"}"#, "tool_choice.type"),
        (tools + #","tool_choice":{"type":"function"}"#, "tool_choice.function"),
        (tools + #","tool_choice":{"type":"function","function":{}}"#, "tool_choice.function.name"),
        (tools + #","tool_choice":{"type":"function","function":{"name":"h"}}"#, "tool_choice.function.name"),
        (tools + #","tool_choice":{"type":"allowed_tools"}"#, "tool_choice.allowed_tools"),
        (
            tools + #","tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"name":"h"}]}}"#,
            "tool_choice.allowed_tools.tools[0]"
        ),
        (#""functions":[{"name":"f"}],"function_call":"required""#, "function_call"),
        (#""functions":[{"name":"f"}],"function_call":{"name":"h"}"#, "function_call.name"),
        (#""response_format":{"type":"json_schema"}"#, "response_format.json_schema"),
        (#""response_format":{"type":"json_schema","json_schema":{}}"#, "response_format.json_schema.schema"),
        (
            #""response_format":{"type":"json_schema","json_schema":{"schema":1}}"#,
            "response_format.json_schema.schema"
        ),
        (
            #""response_format":{"type":"json_schema","json_schema":{"schema":{"type":"array"}}}"#,
            "response_format.json_schema.schema.type"
        ),
        (#""stop":["a","b","c","d","e"]"#, "stop"), (#""stop":"""#, "stop"),
        (#""reasoning_effort":"huge""#, "reasoning_effort"),
        (#""reasoning":{"effort":"huge"}"#, "reasoning.effort"), (#""reasoning":1"#, "reasoning"),
        (#""thinking":{"type":"maybe"}"#, "thinking.type"), (#""logprobs":true"#, "logprobs"),
        (#""modalities":["text","audio"]"#, "modalities"), (#""audio":{}"#, "audio"),
        (#""web_search_options":{}"#, "web_search_options"),
    ])
    func `what is refused is named`(_ members: String, _ parameter: String) throws {
        let error = try #require(throws: APIError.self) { try decode(members) }
        #expect(error.kind == .invalidRequest)
        #expect(error.parameter == parameter)
    }

    @Test(
        arguments: [
            ("", .off, nil, false), (#""reasoning_effort":"none""#, .off, nil, false),
            (#""reasoning_effort":"minimal""#, .automatic, "low", false),
            (#""reasoning_effort":"high""#, .automatic, "high", false),
            (#""include_reasoning":true"#, .summarized, nil, true),
            (#""include_reasoning":true,"reasoning_effort":"none""#, .off, nil, false),
            (#""reasoning":{"effort":"low"}"#, .summarized, "low", true),
            (#""reasoning":{"effort":"low","exclude":true}"#, .automatic, "low", false),
            (#""reasoning":{"enabled":false}"#, .off, nil, false), (#""reasoning":{}"#, .summarized, nil, true),
            (#""thinking":{"type":"enabled","budget_tokens":1024}"#, .summarized, nil, true),
            (#""thinking":{"type":"disabled"}"#, .off, nil, false),
        ] as [(String, RunRequest.Thinking, String?, Bool)])
    func `thinking is off unless it is asked for`(
        _ members: String, _ thinking: RunRequest.Thinking, _ effort: String?, _ isShown: Bool
    ) throws {
        let request = try decode(members)
        #expect(request.thinking == thinking)
        #expect(request.effort == effort)
        #expect(request.reply.showsThinking == isShown)
    }

    @Test func `formats of the answer`() throws {
        #expect(try decode(#""response_format":{"type":"text"}"#).outputSchema == nil)
        #expect(try decode(#""response_format":{"type":"json_object"}"#).outputSchema == ["type": "object"])
        let request = try decode(
            #""response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object","x":1}}}"#
        )
        #expect(request.outputSchema == ["type": "object", "x": 1])
        #expect(request.outputSchemaParameter == "response_format.json_schema.schema")
    }

    @Test func `stops and the number of answers are used`() throws {
        let request = try decode(#""stop":"END","n":3"#)
        #expect(request.stopSequences == ["END"])
        #expect(request.choiceCount == 3)
        #expect(request.ignoredParameters == [])
        #expect(try decode(#""stop":["a"," "]"#).stopSequences == ["a", " "])
    }

    @Test func `a conversation with calls becomes native blocks`() throws {
        let request = try decode(
            #""messages":[{"role":"user","content":"x"},{"role":"assistant","content":"I look.","tool_calls":[{"id":"c.1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","type":"function","function":{"name":"f","arguments":""}}]},{"role":"tool","tool_call_id":"c2","content":"two"},{"role":"tool","tool_call_id":"c.1","content":[{"type":"text","text":"one"}]},{"role":"user","content":"go"}]"#
        )
        #expect(
            request.turns.map { text(.array($0.blocks)) } == [
                #"[{"type":"text","text":"x"}]"#,
                #"[{"type":"text","text":"I look."},{"type":"tool_use","id":"c_1","name":"f","input":{"a":1}},{"type":"tool_use","id":"c2","name":"f","input":{}}]"#,
                #"[{"type":"tool_result","tool_use_id":"c2","content":[{"type":"text","text":"two"}]},{"type":"tool_result","tool_use_id":"c_1","content":[{"type":"text","text":"one"}]},{"type":"text","text":"go"}]"#,
            ])
        // The API wants the history's tools known, and none may be called.
        #expect(request.tools.map(\.name) == ["f"])
        #expect(request.toolChoice.map { text(.object($0)) } == #"{"type":"none"}"#)
    }

    @Test func `a result of a function is the last call's`() throws {
        let request = try decode(
            #""messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}},{"role":"function","name":"f","content":"y"}]"#
        )
        let call = try #require(request.turns[1].blocks.first?["id"])
        #expect(request.turns[2].blocks.first?["tool_use_id"] == call)
    }

    @Test func `images and files are native blocks in their place`() throws {
        let png = Base64.encode(Media.png)
        let request = try decode(
            #""messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,\#(png)","detail":"low"}},{"type":"text","text":"x"},{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBERi0xLjcK"}}]}]"#
        )
        #expect(request.turns[0].blocks.map { $0["type"] } == ["image", "text", "document"])
    }
}

@Suite struct CompletionsRequestTests {
    private func decode(_ members: String) throws -> [RunRequest] {
        try CompletionsRequest.decode(json("{\"model\":\"sonnet\",\(members)}"))
    }

    @Test func `a prompt is the user's turn, one run a prompt`() throws {
        let request = try #require(decode(#""prompt":"a""#).first)
        #expect(request.turns == [.init(role: .user, blocks: [RunRequest.Turn.text("a")])])
        #expect(request.thinking == .off)
        let many = try decode(
            #""prompt":["a","b"],"n":2,"echo":true,"stop":["x"],"max_tokens":5,"stream":true,"seed":1"#)
        #expect(many.count == 2)
        for request in many {
            #expect(request.choiceCount == 2)
            #expect(request.reply.echoesPrompt && request.isStreaming)
            #expect(request.stopSequences == ["x"])
            #expect(request.maxOutputTokens == 5)
            #expect(request.ignoredParameters == ["seed"])
        }
    }

    @Test(arguments: [
        (#""x":1"#, "prompt"), (#""prompt":"""#, "prompt"), (#""prompt":[]"#, "prompt"), (#""prompt":[1,2]"#, "prompt"),
        (#""prompt":["a"," "]"#, "prompt[1]"), (#""prompt":"a","suffix":"x""#, "suffix"),
        (#""prompt":"a","best_of":2"#, "best_of"), (#""prompt":"a","logprobs":1"#, "logprobs"),
        (#""prompt":"a","n":0"#, "n"), (#""prompt":"a","echo":1"#, "echo"),
        (#""prompt":"a","temperature":3"#, "temperature"),
    ])
    func `what is refused is named`(_ members: String, _ parameter: String) throws {
        let error = try #require(throws: APIError.self) { try decode(members) }
        #expect(error.parameter == parameter)
    }
}

@Suite struct MessagesToolsTests {
    private static let tools = #""tools":[{"name":"f","input_schema":{"type":"object","x":1}}]"#

    private func decode(_ members: String, count: Bool = false) throws -> RunRequest {
        var body = try #require(RequestDecoder.anthropic.body.objectValue)
        for member in try #require(json("{\(members)}").objectValue).members { body[member.key] = member.value }
        return count ? try MessagesRequest.decodeCount(.object(body)) : try MessagesRequest.decode(.object(body))
    }

    @Test func `tools keep all but what the CLI sets itself`() throws {
        let request = try decode(
            #""tools":[{"type":"custom","name":"f","description":"D","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"},"strict":true},{"type":"bash_20250124","name":"bash"}],"tool_choice":{"type":"tool","name":"f"}"#
        )
        #expect(
            request.tools.map { text(.object($0.definition)) } == [
                #"{"name":"f","description":"D","input_schema":{"type":"object"},"strict":true}"#,
                #"{"type":"bash_20250124","name":"bash"}"#,
            ])
        #expect(request.toolChoice.map { text(.object($0)) } == #"{"type":"tool","name":"f"}"#)
    }

    @Test func `sampling, stops, effort and thinking are native`() throws {
        let request = try decode(
            #""temperature":0.10,"top_p":1,"top_k":5,"stop_sequences":["a"],"max_tokens":4096,"thinking":{"type":"enabled","budget_tokens":1024},"output_config":{"effort":"high"}"#
        )
        #expect(text(.object(request.sampling)) == #"{"temperature":0.10,"top_p":1,"top_k":5}"#)
        #expect(request.stopSequences == ["a"])
        #expect(request.thinking == .native(["type": "enabled", "budget_tokens": 1024]))
        #expect(request.effort == "high")
        #expect(request.ignoredParameters == [])
        #expect(try decode("").thinking == .off)
    }

    @Test(arguments: [
        (#""output_format":{"type":"json_schema","schema":{"type":"object"}}"#, "output_format.schema"),
        (
            #""output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}"#,
            "output_config.format.schema"
        ),
    ])
    func `an answer's format is a schema`(_ members: String, _ parameter: String) throws {
        let request = try decode(members)
        #expect(request.outputSchema == ["type": "object"])
        #expect(request.outputSchemaParameter == parameter)
    }

    @Test func `counting needs no limit and asks for no answer`() throws {
        let request = try MessagesRequest.decodeCount(json(#"{"messages":[{"role":"user","content":"x"}]}"#))
        #expect(request.countsTokens)
        #expect(request.maxOutputTokens == nil)
        #expect(
            try MessagesRequest.decodeCount(
                json(#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}"#)
            ).turns.count == 2)
    }

    @Test(arguments: [
        (#""tools":[1]"#, "tools[0]"), (#""tools":[{"input_schema":{}}]"#, "tools[0].name"),
        (#""tools":[{"name":"a b","input_schema":{"type":"object"}}]"#, "tools[0].name"),
        (#""tools":[{"name":"f"}]"#, "tools[0].input_schema"),
        (#""tools":[{"name":"f","input_schema":{"type":"array"}}]"#, "tools[0].input_schema.type"),
        (#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#, "tools[0].type"),
        (
            #""tools":[{"name":"f","input_schema":{"type":"object"}},{"name":"f","input_schema":{"type":"object"}}]"#,
            "tools[1].name"
        ),
        (#""tool_choice":{"type":"any"}"#, "tool_choice"), (tools + #","tool_choice":{}"#, "tool_choice.type"),
        (tools + #","tool_choice":{"type":"some"}"#, "tool_choice.type"),
        (tools + #","tool_choice":{"type":"tool"}"#, "tool_choice.name"),
        (tools + #","tool_choice":{"type":"tool","name":"g"}"#, "tool_choice.name"),
        (#""stop_sequences":[""]"#, "stop_sequences"), (#""thinking":{"type":"x"}"#, "thinking.type"),
        (#""thinking":{"type":"enabled","budget_tokens":10}"#, "thinking.budget_tokens"),
        (#""output_config":{"effort":"huge"}"#, "output_config.effort"),
        (#""output_config":{"format":{}}"#, "output_config.format.type"),
        (#""output_config":{"format":{"type":"json_schema"}}"#, "output_config.format.schema"),
        (#""output_format":{"type":"json_schema","schema":{"type":"array"}}"#, "output_format.schema.type"),
        (#""mcp_servers":[{}]"#, "mcp_servers"), (#""container":"x""#, "container"),
    ])
    func `what is refused is named`(_ members: String, _ parameter: String) throws {
        for count in [false, true] {
            let error = try #require(throws: APIError.self) { try decode(members, count: count) }
            #expect(error.kind == .invalidRequest)
            #expect(error.parameter == parameter)
        }
    }

    /// A user's block that is taken, and what becomes of it.
    @Test(arguments: [
        (
            #"{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}"#, #"{"type":"text","text":"x"}"#
        ),
        (
            #"{"type":"image","source":{"type":"url","url":"https://x/y.png"}}"#,
            #"{"type":"image","source":{"type":"url","url":"https://x/y.png"}}"#
        ),
        (
            #"{"type":"document","title":"T","citations":{"enabled":true},"source":{"type":"text","media_type":"text/plain","data":"x"}}"#,
            #"{"type":"document","title":"T","citations":{"enabled":true},"source":{"type":"text","media_type":"text/plain","data":"x"}}"#
        ),
        (#"{"type":"search_result","content":[]}"#, #"{"type":"search_result","content":[]}"#),
    ])
    func `a block goes on as it is`(_ block: String, _ expected: String) throws {
        let request = try decode(#""messages":[{"role":"user","content":[\#(block)]}]"#)
        #expect(text(.array(request.turns[0].blocks)) == "[\(expected)]")
    }

    @Test(arguments: [
        (#"{"type":"video"}"#, "type"), (#"{"type":"tool_use","id":"a","name":"f","input":{}}"#, "type"),
        (#"{"type":"text","text":" "}"#, "text"), (#"{"type":"image"}"#, "source"),
        (#"{"type":"image","source":{"type":"file"}}"#, "source.type"),
        (#"{"type":"image","source":{"type":"url","url":"file:///x"}}"#, "source.url"),
        (#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}"#, "source.data"),
        (
            #"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}"#,
            "source.data"
        ),
        (#"{"type":"document","source":{"type":"text","data":""}}"#, "source.data"),
        (#"{"type":"document","source":{"type":"content"}}"#, "source.content"),
        (#"{"type":"tool_result"}"#, "tool_use_id"),
        (#"{"type":"tool_result","tool_use_id":"a","content":1}"#, "content"),
        (#"{"type":"tool_result","tool_use_id":"a","content":[{"type":"x"}]}"#, "content[0].type"),
        (#"{"type":"tool_result","tool_use_id":"a","is_error":1}"#, "is_error"),
    ])
    func `a user's block that is refused is named`(_ block: String, _ place: String) throws {
        let error = try #require(throws: APIError.self) {
            try decode(#""messages":[{"role":"user","content":[\#(block)]}]"#)
        }
        #expect(error.parameter == "messages[0].content[0].\(place)")
    }

    @Test(arguments: [
        (#"{"type":"image"}"#, "type"), (#"{"type":"tool_use"}"#, "id"), (#"{"type":"tool_use","id":"a"}"#, "name"),
        (#"{"type":"tool_use","id":"a","name":"f"}"#, "input"),
        (#"{"type":"tool_use","id":"a","name":"f","input":1}"#, "input"), (#"{"type":"thinking"}"#, "thinking"),
        (#"{"type":"thinking","thinking":"x"}"#, "signature"), (#"{"type":"redacted_thinking"}"#, "data"),
    ])
    func `an assistant's block that is refused is named`(_ block: String, _ place: String) throws {
        let error = try #require(throws: APIError.self) {
            try decode(#""messages":[{"role":"assistant","content":[\#(block)]},{"role":"user","content":"x"}]"#)
        }
        #expect(error.parameter == "messages[0].content[0].\(place)")
    }

    @Test func `calls, results and thoughts keep their form`() throws {
        let messages = try json(
            #"[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"s"},{"type":"tool_use","id":"t1","name":"f","input":{"a":1.0}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"y","is_error":true}]}]"#
        )
        let request = try RequestDecoder.anthropic.with("messages", messages)
        #expect(
            request.turns.dropFirst().map { JSONValue.array($0.blocks) }
                == messages.arrayValue?.dropFirst().compactMap { $0["content"] })
    }
}
