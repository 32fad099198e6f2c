import Testing

@testable import Dialects

@Suite struct ToolNamesTests {
    @Test(arguments: [
        ("get_weather", "get_weather"), ("bash", "bash"), ("Bash", "mcp__client__Bash"), ("Read", "mcp__client__Read"),
        ("StructuredOutput", "mcp__client__StructuredOutput"), ("mcp__x__y", "mcp__client__mcp__x__y"),
        ("mcp__client__a", "mcp__client__mcp__client__a"), ("mcp_", "mcp_"), ("Task", "mcp__client__Task"),
        ("Bash2", "Bash2"), ("", ""),
    ])
    func `the CLI's own names are told apart, and come back`(_ name: String, _ expected: String) {
        #expect(ToolNames.toCLI(name) == expected)
        #expect(ToolNames.fromCLI(expected) == name)
    }
}

@Suite struct OutputSchemaTests {
    /// The caller's schema and what the CLI's validator is given.
    private static let reductions: [(String, String)] = [
        (#"{"type":"object"}"#, #"{"type":"object"}"#), (#"{}"#, #"{"type":"object"}"#),
        (
            #"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","x-mine":1,"nullable":true}"#,
            #"{"type":"object"}"#
        ),
        (
            #"{"type":"object","properties":{"x-mine":{"type":"string","example":"e","format":"date"}},"required":["x-mine"]}"#,
            #"{"type":"object","properties":{"x-mine":{"type":"string","format":"date"}},"required":["x-mine"]}"#
        ),
        (
            ##"{"type":"object","$defs":{"unknown":{"strange":1,"type":"null"}},"properties":{"a":{"$ref":"#/$defs/unknown"}}}"##,
            ##"{"type":"object","$defs":{"unknown":{"type":"null"}},"properties":{"a":{"$ref":"#/$defs/unknown"}}}"##
        ),
        (
            #"{"type":"object","anyOf":[{"strange":1},true],"not":{"strange":1},"items":{"strange":1}}"#,
            #"{"type":"object","anyOf":[{},true],"not":{},"items":{}}"#
        ),
        (
            #"{"type":"object","prefixItems":[{"strange":1},{"type":"string"}],"items":false}"#,
            #"{"type":"object","items":[{},{"type":"string"}],"additionalItems":false}"#
        ),
        (
            #"{"type":"object","const":{"strange":1},"default":{"strange":1},"enum":[{"strange":1}]}"#,
            #"{"type":"object","const":{"strange":1},"default":{"strange":1},"enum":[{"strange":1}]}"#
        ),
        (
            #"{"type":"object","dependencies":{"a":["b"],"c":{"strange":1}},"additionalProperties":{"strange":1}}"#,
            #"{"type":"object","dependencies":{"a":["b"],"c":{}},"additionalProperties":{}}"#
        ),
    ]

    @Test(arguments: reductions)
    func `keywords that the CLI's validator does not know are left out`(_ schema: String, _ expected: String) throws {
        #expect(OutputSchema.forValidator(try json(schema)) == (try json(expected)))
    }

    @Test func `the model sees the caller's own schema, said to be an object`() throws {
        let schema = try json(#"{"type":"object","x-mine":1,"prefixItems":[1]}"#)
        #expect(OutputSchema.forModel(schema) == schema)
        #expect(OutputSchema.forModel(["x": 1]) == ["x": 1, "type": "object"])
    }

    @Test func `a schema of any depth is taken`() {
        var schema: JSONValue = [:]
        for _ in 0..<1000 { schema = ["not": schema] }
        #expect(OutputSchema.forValidator(schema)["type"] == "object")
    }
}

@Suite struct UpstreamBodyTests {
    private static func request(_ change: (inout RunRequest) -> Void) -> RunRequest {
        var request = RunRequest(turns: [])
        change(&request)
        return request
    }

    private static func body(_ change: (inout RunRequest) -> Void) -> String {
        text(.object(UpstreamBody.extras(for: request(change))))
    }

    private static func tool(_ name: String) -> RunRequest.Tool {
        RunRequest.Tool(
            name: name,
            definition: JSONObject([("name", .string(name)), ("input_schema", ["type": "object"]), ("x", 1)]))
    }

    @Test func `a plain request adds nothing`() {
        #expect(Self.body { _ in } == "{}")
        #expect(Self.body { $0.thinking = .off } == "{}")
        #expect(Self.body { $0.thinking = .summarized } == "{}")
        #expect(Self.body { $0.stopSequences = [" ", "\n\n"] } == "{}")
    }

    @Test func `tools go upstream as they are but for the CLI's own names`() {
        let body = Self.body { request in
            request.tools = [Self.tool("a"), Self.tool("Bash")]
            request.toolChoice = JSONObject([("type", "tool"), ("name", "Bash"), ("disable_parallel_tool_use", true)])
        }
        #expect(
            body
                == #"{"tools":[{"name":"a","input_schema":{"type":"object"},"x":1},{"name":"mcp__client__Bash","input_schema":{"type":"object"},"x":1}],"tool_choice":{"type":"tool","name":"mcp__client__Bash","disable_parallel_tool_use":true}}"#
        )
    }

    @Test func `an answer's schema is a tool behind the caller's`() throws {
        let body = try json(
            Self.body { request in
                request.tools = [Self.tool("a")]
                request.outputSchema = ["x-mine": 1]
            })
        let tools = try #require(body["tools"]?.arrayValue)
        #expect(tools.map { $0["name"] } == ["a", "StructuredOutput"])
        #expect(tools[1]["input_schema"] == ["x-mine": 1, "type": "object"])
        #expect(body["tool_choice"] == nil)
    }

    @Test func `stops, sampling and thinking are the API's own members`() {
        let body = Self.body { request in
            request.stopSequences = ["END", " ", "\n-"]
            request.sampling = JSONObject([("temperature", .number("0.10")), ("top_k", 5)])
            request.thinking = .native(["type": "enabled", "budget_tokens": 1024])
        }
        #expect(
            body
                == #"{"stop_sequences":["END","\n-"],"temperature":0.10,"top_k":5,"thinking":{"type":"enabled","budget_tokens":1024}}"#
        )
    }
}
