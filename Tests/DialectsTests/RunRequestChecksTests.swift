import Testing

@testable import Dialects

@Suite struct RunRequestChecksTests {
    /// A conversation in short: `u` text, `c1` a call, `r1` its result, a space between turns.
    private static func request(_ words: String) -> RunRequest {
        let turns = words.split(separator: " ").map { turn -> RunRequest.Turn in
            let role: RunRequest.Role = turn.hasPrefix("a") ? .assistant : .user
            let blocks = turn.dropFirst().split(separator: ",").map { word -> JSONValue in
                let id = JSONValue.string(String(word.dropFirst()))
                switch word.first {
                case "c": return ["type": "tool_use", "id": id, "name": "f", "input": [:]]
                case "r": return ["type": "tool_result", "tool_use_id": id]
                default: return RunRequest.Turn.text("x")
                }
            }
            return .init(role: role, blocks: blocks)
        }
        return RunRequest(turns: turns)
    }

    @Test(arguments: [
        "", "ut", "ut at ut", "ut ac1 ur1", "ut at,c1,c2 ur2,r1", "ut ac1 ur1,t ac1 ur1 at ut", "ut ac1", "ac1 ur1",
    ])
    func `calls with their results pass`(_ words: String) {
        #expect(throws: Never.self) { try Self.request(words).requireToolResults() }
    }

    @Test(arguments: [
        ("ur1", "result"), ("ut at ur1", "result"), ("ut ac1 ur2", "result"), ("ut ac1 ur1,r1", "result"),
        ("ut ac1 ur1 at ur1", "result"), ("ut ac1 ut", "call"), ("ut ac1,c2 ur1", "call"), ("ut ac1 ut at ut", "call"),
    ])
    func `a call without a result and a result without a call are refused`(_ words: String, _ what: String) throws {
        let error = try #require(throws: APIError.self) { try Self.request(words).requireToolResults("input") }
        #expect(error.kind == .invalidRequest)
        #expect(error.parameter == "input")
        #expect(error.message.hasPrefix("`input`: the tool \(what)"))
    }

    @Test func `results come first in their turn`() {
        var request = Self.request("ut ac1,c2")
        let first = Self.request("ur1").turns[0].blocks
        let second = Self.request("ur2").turns[0].blocks
        let text = RunRequest.Turn.text("t")
        request.append(.user, first)
        request.append(.user, [text])
        request.append(.user, second)
        #expect(request.turns.last?.blocks == first + second + [text])
    }

    @Test func `neighbours of one role are one turn`() {
        var request = Self.request("ut")
        request.append(.user, [RunRequest.Turn.text("y")])
        request.append(.assistant, [RunRequest.Turn.text("z")])
        #expect(request.turns.map(\.blocks.count) == [2, 1])
    }

    @Test(arguments: ["", "at", "ut at"])
    func `a conversation ends with the caller's turn`(_ words: String) throws {
        let error = try #require(throws: APIError.self) { try Self.request(words).requireUserTurnLast("input") }
        #expect(error.parameter == "input")
    }

    @Test(arguments: [
        ("1", "p"), ("[]", "p"), ("\"object\"", "p"), (#"{"type":"array"}"#, "p.type"),
        (#"{"type":["object"]}"#, "p.type"),
    ])
    func `an answer's schema is an object's`(_ schema: String, _ parameter: String) throws {
        let error = try #require(throws: APIError.self) {
            var request = RunRequest(turns: [])
            try request.requireAnswer(fitting: json(schema), path: "p")
        }
        #expect(error.parameter == parameter)
    }
}

@Suite struct FunctionToolsTests {
    private static func tool(name: String = "f", parameters: JSONValue = nil) throws(APIError) -> RunRequest.Tool? {
        let function: JSONValue = ["name": .string(name), "description": "D", "parameters": parameters]
        var request = RunRequest(turns: [])
        try FunctionTools.append(try FieldReader(function, path: "t"), to: &request)
        return request.tools.last
    }

    @Test(arguments: [
        ("null", #"{"type":"object","properties":{}}"#), ("{}", #"{"type":"object","properties":{}}"#),
        (#"{"type":"object"}"#, #"{"type":"object","properties":{}}"#),
        (
            #"{"properties":{"b":{},"a":{"minimum":1.50}},"x-mine":1}"#,
            #"{"properties":{"b":{},"a":{"minimum":1.50}},"x-mine":1,"type":"object"}"#
        ),
    ])
    func `a function's parameters are the tool's schema`(_ parameters: String, _ expected: String) throws {
        let tool = try #require(try Self.tool(parameters: json(parameters)))
        #expect(tool.name == "f")
        #expect(
            text(.object(tool.definition)) == #"{"name":"f","description":"D","input_schema":\#(expected)}"#)
    }

    @Test(arguments: [("1", "t.parameters"), ("[]", "t.parameters"), (#"{"type":"string"}"#, "t.parameters.type")])
    func `parameters that are no object's schema are refused`(_ parameters: String, _ path: String) throws {
        let error = try #require(throws: APIError.self) { try Self.tool(parameters: json(parameters)) }
        #expect(error.parameter == path)
    }

    @Test(arguments: ["", "a b", "a.b", "é", "a\n", String(repeating: "x", count: 65), "a/b"])
    func `a name that no vendor takes is refused`(_ name: String) throws {
        let error = try #require(throws: APIError.self) { try Self.tool(name: name) }
        #expect(error.parameter == "t.name")
    }

    @Test(arguments: [
        ("", "{}"), (" \n", "{}"), (#"{"a":1.50}"#, #"{"a":1.50}"#), ("{broken", #"{"arguments":"{broken"}"#),
        ("[1]", #"{"arguments":"[1]"}"#), ("null", #"{"arguments":"null"}"#),
    ])
    func `a call of the history keeps its arguments, whatever they are`(_ arguments: String, _ input: String) {
        #expect(
            text(FunctionTools.callBlock(id: "call.1", name: "f", arguments: arguments))
                == #"{"type":"tool_use","id":"call_1","name":"f","input":\#(input)}"#)
    }

    @Test func `a call and its result have one id`() {
        let call = FunctionTools.callBlock(id: "é|:x", name: "f", arguments: "")
        #expect(call["id"] == FunctionTools.resultBlock(id: "é|:x", content: [])["tool_use_id"])
        #expect(FunctionTools.resultBlock(id: "a", content: [])["content"] == nil)
    }

    @Test(
        arguments: [
            ("auto", nil, true, nil), ("auto", nil, false, #"{"type":"auto","disable_parallel_tool_use":true}"#),
            ("none", nil, false, #"{"type":"none"}"#), ("any", nil, true, #"{"type":"any"}"#),
            ("tool", "f", false, #"{"type":"tool","name":"f","disable_parallel_tool_use":true}"#),
        ] as [(String, String?, Bool, String?)])
    func `a choice of tools is the API's`(_ type: String, _ name: String?, _ isParallel: Bool, _ expected: String?) {
        let choice = FunctionTools.choice(type, name: name, isParallel: isParallel)
        #expect(choice.map { text(.object($0)) } == expected)
    }

    @Test func `a history's tools are known by their calls`() {
        let calls = ["f", "g", "f"].map { FunctionTools.callBlock(id: "1", name: $0, arguments: "") }
        let tools = FunctionTools.historical([
            .init(role: .user, blocks: [["type": "tool_use", "name": "no"]]), .init(role: .assistant, blocks: calls),
        ])
        #expect(tools.map(\.name) == ["f", "g"])
        #expect(tools[0].definition["input_schema"]?["type"] == "object")
    }
}

@Suite struct ToolSchemaTests {
    /// The first has no alternatives and stays; of the others the rule itself is in the description.
    @Test(
        arguments: [
            (#"{"type":"object","x":1}"#, #"{"type":"object","x":1}"#, nil), ("1", "1", nil),
            (
                #"{"oneOf":[{"properties":{"a":{},"b":{}},"required":["a"]},{"properties":{"a":{"x":1}}}]}"#,
                #"{"type":"object","properties":{"a":{},"b":{}}}"#,
                #"{"oneOf":[{"properties":{"a":{},"b":{}},"required":["a"]},{"properties":{"a":{"x":1}}}]}"#
            ),
            (
                #"{"type":"object","properties":{"a":{}},"required":["a"],"allOf":[{"required":["a","b"]},true]}"#,
                #"{"type":"object","properties":{"a":{}},"required":["a","b"]}"#,
                #"{"allOf":[{"required":["a","b"]},true]}"#
            ),
        ] as [(String, String, String?)])
    func `alternatives at a schema's top become properties and a rule in words`(
        _ schema: String, _ expected: String, _ rule: String?
    ) throws {
        let flat = ToolSchema.flattened(try json(schema))
        let description = flat["description"]?.stringValue
        var object = flat.objectValue
        object?["description"] = nil
        for (name, value) in (try json(expected)).objectValue?.members.map({ ($0.key, $0.value) }) ?? [] {
            #expect(object?[name] == value)
        }
        #expect(description.map { String($0.drop { $0 != "{" }) } == rule)
        for name in ["anyOf", "oneOf", "allOf"] { #expect(flat[name] == nil) }
    }
}
