import Dialects
import Testing

/// How `POST /v1/responses` is read.
@Suite struct ResponsesRequestTests {
    private static func decode(_ body: String) throws -> ResponsesRequest {
        var request = try ResponsesRequest.decode(try json(body))
        try request.finish()
        return request
    }

    private static let function = #"{"type":"function","name":"f","parameters":{"type":"object","properties":{}}}"#

    @Test func `a text is one user message`() throws {
        let request = try Self.decode(#"{"model":"m","input":"Hi"}"#)
        #expect(request.run.turns == [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
        #expect(request.run.thinking == .off)
        #expect(request.run.ignoredParameters == [])
        #expect(request.isStored)
        #expect(!request.isBackground)
        #expect(request.previousID == nil)
    }

    @Test func `items become turns, system messages the system prompt behind the instructions`() throws {
        let request = try Self.decode(
            """
            {"instructions":"I","input":[
              {"role":"developer","content":"D"},
              {"role":"user","content":[{"type":"input_text","text":"Q"}]},
              {"type":"message","role":"system","content":[{"type":"input_text","text":"S"}]},
              {"type":"message","role":"assistant","id":"msg_1","status":"completed","content":[
                {"type":"output_text","text":"A","annotations":[]},{"type":"refusal","refusal":"no"}]},
              {"type":"reasoning","id":"rs_1","summary":[]},
              {"type":"function_call","call_id":"c.1","name":"f","arguments":"{\\"a\\":1}"},
              {"role":"user","content":"next"},
              {"type":"function_call_output","call_id":"c.1","output":"out"}]}
            """)
        #expect(request.run.system == ["I", "D", "S"])
        #expect(request.run.turns.map(\.role) == [.user, .assistant, .user])
        #expect(
            try request.run.turns[1].blocks == [
                json(#"{"type":"text","text":"A"}"#), json(#"{"type":"text","text":"no"}"#),
                json(#"{"type":"tool_use","id":"c_1","name":"f","input":{"a":1}}"#),
            ])
        #expect(
            try request.run.turns[2].blocks == [
                json(#"{"type":"tool_result","tool_use_id":"c_1","content":[{"type":"text","text":"out"}]}"#),
                json(#"{"type":"text","text":"next"}"#),
            ])
        #expect(request.run.tools.map(\.name) == ["f"])
        #expect(request.run.toolChoice?["type"] == "none")
    }

    @Test func `images and files are native blocks`() throws {
        let request = try Self.decode(
            """
            {"input":[{"role":"user","content":[
              {"type":"input_image","image_url":"https://x.test/a.png","detail":"low"},
              {"type":"input_file","filename":"a.txt","file_data":"data:text/plain;base64,SGk="},
              {"type":"input_file","file_url":"https://x.test/a.pdf"}]}]}
            """)
        #expect(
            try request.run.turns[0].blocks == [
                json(#"{"type":"image","source":{"type":"url","url":"https://x.test/a.png"}}"#),
                json(
                    #"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"Hi"},"title":"a.txt"}"#
                ),
                json(#"{"type":"document","source":{"type":"url","url":"https://x.test/a.pdf"}}"#),
            ])
    }

    @Test(arguments: [
        (#"{}"#, "input"),
        (#"{"input":1}"#, "input"),
        (#"{"input":""}"#, "input"),
        (#"{"input":[]}"#, "input"),
        (#"{"input":["x"]}"#, "input[0]"),
        (#"{"input":[{}]}"#, "input[0].type"),
        (#"{"input":[{"id":"msg_1"}]}"#, "input[0].type"),
        (#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#, "input[0].type"),
        (#"{"input":[{"type":"web_search_call","id":"ws_1"}]}"#, "input[0].type"),
        (#"{"input":[{"role":"critic","content":"x"}]}"#, "input[0].role"),
        (#"{"input":[{"type":"message","content":"x"}]}"#, "input[0].role"),
        (#"{"input":[{"role":"user"}]}"#, "input[0].content"),
        (#"{"input":[{"role":"user","content":" "}]}"#, "input[0].content"),
        (#"{"input":[{"role":"user","content":1}]}"#, "input[0].content"),
        (#"{"input":[{"role":"user","content":[{"text":"x"}]}]}"#, "input[0].content[0].type"),
        (#"{"input":[{"role":"user","content":[{"type":"input_audio"}]}]}"#, "input[0].content[0].type"),
        (#"{"input":[{"role":"user","content":[{"type":"input_text"}]}]}"#, "input[0].content[0].text"),
        (
            #"{"input":[{"role":"user","content":[{"type":"input_image","file_id":"file-1"}]}]}"#,
            "input[0].content[0].file_id"
        ),
        (#"{"input":[{"role":"user","content":[{"type":"input_image"}]}]}"#, "input[0].content[0].image_url"),
        (
            #"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"file:///etc"}]}]}"#,
            "input[0].content[0].image_url"
        ),
        (
            #"{"input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}"#,
            "input[0].content[0].file_id"
        ),
        (#"{"input":[{"role":"user","content":[{"type":"input_file"}]}]}"#, "input[0].content[0].file_data"),
        (
            #"{"input":[{"role":"assistant","content":[{"type":"input_image","image_url":"https://x"}]}]}"#,
            "input[0].content[0].type"
        ),
        (#"{"input":[{"role":"assistant","content":"x"}]}"#, "input"),
        (#"{"input":[{"type":"function_call","name":"f","arguments":"{}"}]}"#, "input[0].call_id"),
        (#"{"input":[{"type":"function_call","call_id":"c","arguments":"{}"}]}"#, "input[0].name"),
        (#"{"input":[{"type":"function_call","call_id":"c","name":"a b"}]}"#, "input[0].name"),
        (#"{"input":[{"type":"function_call_output","call_id":"c"}]}"#, "input[0].output"),
        (#"{"input":[{"type":"function_call_output","output":"x"}]}"#, "input[0].call_id"),
        (#"{"input":[{"type":"function_call_output","call_id":"c","output":"x"}]}"#, "input"),
        (
            #"{"input":[{"type":"function_call","call_id":"c","name":"f"},{"role":"user","content":"x"}]}"#,
            "input"
        ),
        (
            #"{"input":[{"type":"reasoning","encrypted_content":"gAAAAA","summary":[]},{"role":"user","content":"x"}]}"#,
            "input[0].encrypted_content"
        ),
    ])
    func `an input that can't be had is refused by name`(_ body: String, _ parameter: String) throws {
        let body = try json(body)
        let error = try #require(throws: APIError.self) {
            var request = try ResponsesRequest.decode(body)
            try request.finish()
        }
        #expect(error.kind == .invalidRequest)
        #expect(error.parameter == parameter)
        #expect(parameter == "input" || error.message.contains("`\(parameter)`"))
    }

    @Test(arguments: [
        (#""model":1"#, "model"), (#""instructions":[]"#, "instructions"), (#""stream":"yes""#, "stream"),
        (#""store":1"#, "store"), (#""background":1"#, "background"),
        (#""background":true,"store":false"#, "background"),
        (#""previous_response_id":1"#, "previous_response_id"), (#""conversation":"c""#, "conversation"),
        (#""prompt":{"id":"p"}"#, "prompt"), (#""max_output_tokens":0"#, "max_output_tokens"),
        (#""max_tool_calls":0"#, "max_tool_calls"), (#""metadata":{"a":1}"#, "metadata"),
        (#""metadata":[]"#, "metadata"), (#""temperature":3"#, "temperature"), (#""top_p":2"#, "top_p"),
        (#""truncation":"some""#, "truncation"), (#""include":"x""#, "include"),
        (#""include":["reasoning.encrypted_content","x"]"#, "include[1]"),
        (#""include":["message.output_text.logprobs"]"#, "include[0]"), (#""user":1"#, "user"),
        (#""stream_options":true"#, "stream_options"), (#""reasoning":"high""#, "reasoning"),
        (#""reasoning":{"effort":"most"}"#, "reasoning.effort"),
        (#""reasoning":{"summary":"long"}"#, "reasoning.summary"), (#""text":"x""#, "text"),
        (#""text":{"verbosity":"some"}"#, "text.verbosity"), (#""text":{"format":{}}"#, "text.format.type"),
        (#""text":{"format":{"type":"grammar"}}"#, "text.format.type"),
        (#""text":{"format":{"type":"json_schema","schema":{}}}"#, "text.format.name"),
        (#""text":{"format":{"type":"json_schema","name":"n"}}"#, "text.format.schema"),
        (#""text":{"format":{"type":"json_schema","name":"n","schema":[]}}"#, "text.format.schema"),
        (
            #""text":{"format":{"type":"json_schema","name":"n","schema":{"type":"array"}}}"#,
            "text.format.schema.type"
        ),
        (#""tools":{}"#, "tools"), (#""tools":[{"name":"f"}]"#, "tools[0].type"),
        (#""tools":[{"type":"web_search"}]"#, "tools[0].type"),
        (#""tools":[{"type":"custom","name":"f"}]"#, "tools[0].type"),
        (#""tools":[{"type":"function"}]"#, "tools[0].name"),
        (#""tools":[{"type":"function","name":"a b"}]"#, "tools[0].name"),
        (#""tools":[{"type":"function","name":"f","parameters":[]}]"#, "tools[0].parameters"),
        (#""tools":[{"type":"function","name":"f"},{"type":"function","name":"f"}]"#, "tools[1].name"),
        (#""tool_choice":"required""#, "tool_choice"),
        (#""tools":[{"type":"function","name":"f"}],"tool_choice":"any""#, "tool_choice"),
        (#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"mcp"}"#, "tool_choice.type"),
        (
            #""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}"#,
            "tool_choice.name"
        ),
        (
            #""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[]}"#,
            "tool_choice.tools"
        ),
        (
            #""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","tools":[{"name":"g"}]}"#,
            "tool_choice.tools[0].name"
        ), (#""parallel_tool_calls":1"#, "parallel_tool_calls"),
    ])
    func `a parameter that can't be had is refused by name`(_ member: String, _ parameter: String) throws {
        let body = try json(#"{"input":"x","# + member + "}")
        let error = try #require(throws: APIError.self) { try ResponsesRequest.decode(body) }
        #expect(error.parameter == parameter)
        #expect(error.message.contains("`\(parameter)`"))
    }

    @Test(arguments: [
        ("", nil, false), (#","tool_choice":"auto","parallel_tool_calls":true"#, nil, false),
        (#","tool_choice":"none""#, #"{"type":"none"}"#, false),
        (#","tool_choice":"required""#, #"{"type":"any"}"#, true),
        (#","parallel_tool_calls":false"#, #"{"type":"auto","disable_parallel_tool_use":true}"#, false),
        (#","tool_choice":{"type":"function","name":"f"}"#, #"{"type":"tool","name":"f"}"#, true),
        (
            #","tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]}"#,
            #"{"type":"any"}"#, true
        ),
    ])
    func `a choice of tools is the Messages API's`(_ members: String, _ choice: String?, _ isForced: Bool) throws {
        let request = try Self.decode(
            #"{"input":"x","reasoning":{"effort":"high"},"tools":["# + Self.function + "]" + members + "}")
        #expect(try request.run.toolChoice.map { .object($0) } == choice.map { try json($0) })
        #expect(request.run.thinking == (isForced ? .off : .automatic))
        #expect(request.run.tools.map(\.name) == ["f"])
    }

    @Test(arguments: [
        ("null", RunRequest.Thinking.off, nil), ("{}", .off, nil), (#"{"effort":"none","summary":"auto"}"#, .off, nil),
        (#"{"effort":"minimal"}"#, .automatic, "low"), (#"{"effort":"xhigh"}"#, .automatic, "xhigh"),
        (#"{"summary":"auto"}"#, .summarized, nil),
        (#"{"effort":"low","generate_summary":"concise"}"#, .summarized, "low"),
    ])
    func `reasoning is thinking`(_ reasoning: String, _ thinking: RunRequest.Thinking, _ effort: String?) throws {
        let request = try Self.decode(#"{"input":"x","reasoning":"# + reasoning + "}")
        #expect(request.run.thinking == thinking)
        #expect(request.run.effort == effort)
        #expect(request.showsSummary == (thinking == .summarized))
    }

    @Test func `a format is the schema of the answer`() throws {
        let schema = #"{"type":"object","properties":{"a":{"type":"string"}}}"#
        let request = try Self.decode(
            #"{"input":"x","text":{"format":{"type":"json_schema","name":"n","schema":"# + schema + "}}}")
        #expect(try request.run.outputSchema == json(schema))
        #expect(request.run.outputSchemaParameter == "text.format.schema")
        #expect(request.echo["text"]?["format"]?["name"] == "n")
        let object = try Self.decode(#"{"input":"x","text":{"format":{"type":"json_object"}}}"#)
        #expect(object.run.outputSchema == ["type": "object"])
        #expect(try Self.decode(#"{"input":"x","text":{"format":{"type":"text"}}}"#).run.outputSchema == nil)
    }

    @Test func `what changes nothing is named`() throws {
        let request = try Self.decode(
            """
            {"input":"x","temperature":0.5,"top_p":1,"truncation":"auto","user":"u","service_tier":"flex",
             "stream_options":{"include_obfuscation":false},"max_tool_calls":3,"new_thing":1,"null_thing":null,
             "include":["web_search_call.results"],"text":{"verbosity":"low"},
             "reasoning":{"effort":"low","context":"auto"},"tools":[{"type":"function","name":"f","strict":true}]}
            """)
        #expect(
            request.run.ignoredParameters.sorted() == [
                "max_tool_calls", "new_thing", "reasoning.context", "service_tier", "temperature",
                "text.verbosity", "tools.strict", "top_p", "truncation", "user",
            ])
        #expect(!request.includesEncrypted)
        #expect(try Self.decode(#"{"input":"x","truncation":"disabled"}"#).run.ignoredParameters == [])
        #expect(try Self.decode(#"{"input":"x","include":["reasoning.encrypted_content"]}"#).includesEncrypted)
    }

    @Test func `input items have ids, states and parts`() throws {
        let request = try Self.decode(
            """
            {"input":[{"role":"user","content":"Q"},{"role":"assistant","content":"A","id":"msg_own"},
              {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
              {"type":"function_call_output","call_id":"c","output":"o"},
              {"role":"user","content":[{"type":"input_image","image_url":"https://x.test/a.png"}]}]}
            """)
        #expect(
            text(.array(request.inputItems(responseID: "resp_R")))
                == #"[{"id":"msg_R_in0","type":"message","status":"completed","role":"user","content":"#
                + #"[{"type":"input_text","text":"Q"}]},{"id":"msg_own","type":"message","status":"completed","#
                + #""role":"assistant","content":[{"type":"output_text","text":"A","annotations":[],"logprobs":[]}]},"#
                + #"{"id":"fc_R_in2","type":"function_call","status":"completed","call_id":"c","name":"f","#
                + #""arguments":"{}"},{"id":"fco_R_in3","type":"function_call_output","status":"completed","#
                + #""call_id":"c","output":"o"},{"id":"msg_R_in4","type":"message","status":"completed","role":"user","#
                + #""content":[{"type":"input_image","image_url":"https://x.test/a.png","detail":"auto"}]}]"#)
        let plain = try Self.decode(#"{"input":"Hi"}"#).inputItems(responseID: "resp_R")
        #expect(plain.first?["content"]?.arrayValue?.first?["text"] == "Hi")
    }
}
