import Testing

@testable import Dialects

@Suite struct ToolServerTests {
    private static func server(_ schema: String = #"{"type":"object"}"#) throws -> ToolServer {
        ToolServer([
            RunRequest.Tool(
                name: "Bash",
                definition: JSONObject([
                    ("name", "Bash"), ("description", "It runs."), ("input_schema", try json(schema)),
                ]))
        ])
    }

    /// The MCP answer in the line that a message gets; nil for none.
    private static func answer(_ server: inout ToolServer, _ message: JSONValue?) throws -> JSONValue? {
        let line: JSONValue = ["request_id": "r", "request": ["subtype": "mcp_message", "message": message ?? nil]]
        guard let bytes = server.answer(line) else { return nil }
        let reply = try JSONParser.parse(bytes)
        #expect(reply["type"] == "control_response")
        #expect(reply["response"]?["subtype"] == "success")
        #expect(reply["response"]?["request_id"] == "r")
        return reply["response"]?["response"]?["mcp_response"]
    }

    @Test func `the CLI is told the server and its tools`() throws {
        var server = try Self.server()
        #expect(
            try Self.answer(
                &server, ["jsonrpc": "2.0", "id": 0, "method": "initialize", "params": ["protocolVersion": "v9"]])
                == [
                    "jsonrpc": "2.0", "id": 0,
                    "result": [
                        "protocolVersion": "v9", "capabilities": ["tools": [:]],
                        "serverInfo": ["name": "client", "version": "1"],
                    ],
                ])
        #expect(!server.isListed)
        #expect(
            try Self.answer(&server, ["id": "x", "method": "tools/list"])
                == [
                    "jsonrpc": "2.0", "id": "x",
                    "result": [
                        "tools": [
                            [
                                "name": "mcp__client__Bash", "description": "It runs.",
                                "inputSchema": ["type": "object"], "annotations": ["readOnlyHint": true],
                            ]
                        ]
                    ],
                ])
        #expect(server.isListed)
    }

    @Test func `a call is left unanswered, anything else is not`() throws {
        var server = try Self.server()
        #expect(try Self.answer(&server, Self.call(3, "toolu_1")) == nil)
        #expect(!server.hasUnknownCall)
        for message in [["method": "notifications/initialized"], ["id": 1, "method": "ping"], [:], nil] as [JSONValue?]
        {
            #expect(try Self.answer(&server, message)?["result"] == [:])
        }
        #expect(!server.isListed)
    }

    /// One schema that the CLI can't read would cost all tools.
    @Test(arguments: [
        (#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}"#, true),
        (#"{"type":"object","oneOf":[]}"#, true), (#"{}"#, false), (#"{"type":"string"}"#, false),
        (#"{"type":["object"]}"#, false), (#"{"type":"object","properties":[]}"#, false),
        (#"{"type":"object","properties":{"a":true}}"#, false), (#"{"type":"object","required":"a"}"#, false),
        (#"{"type":"object","required":[1]}"#, false), ("1", false),
    ])
    func `a schema that the CLI does not take is replaced`(_ schema: String, _ isTaken: Bool) throws {
        var server = try Self.server(schema)
        let answer = try Self.answer(&server, ["id": 1, "method": "tools/list"])
        let tool = answer?["result"]?["tools"]?.arrayValue?.first
        #expect(tool?["inputSchema"] == (isTaken ? try json(schema) : ["type": "object"]))
    }

    // MARK: Results

    private static func call(_ id: Int, _ toolUseID: String) -> JSONValue {
        [
            "jsonrpc": "2.0", "id": .integer(id), "method": "tools/call",
            "params": ["name": "Bash", "arguments": [:], "_meta": ["claudecode/toolUseId": .string(toolUseID)]],
        ]
    }

    private static func answers(_ bytes: [UInt8]) throws -> [JSONValue?] {
        try String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { line in
            try json(String(line))["response"]?["response"]?["mcp_response"]
        }
    }

    @Test func `results are given one at a time, in the order of the calls`() throws {
        var server = try Self.server()
        for id in [2, 1] { #expect(try Self.answer(&server, Self.call(id, "toolu_\(id)")) == nil) }
        #expect(!server.hasAnswered("toolu_1"))
        let first = server.give([("toolu_1", ["content": ["one"]]), ("toolu_2", ["content": ["two"]])])
        #expect(try Self.answers(first) == [["jsonrpc": "2.0", "id": 1, "result": ["content": ["one"]]]])
        #expect(server.hasAnswered("toolu_1") && !server.hasAnswered("toolu_2"))
        #expect(server.told("other").isEmpty)
        #expect(
            try Self.answers(server.told("toolu_1")) == [["jsonrpc": "2.0", "id": 2, "result": ["content": ["two"]]]])
        #expect(server.hasAnswered("toolu_2"))
        #expect(server.told("toolu_2").isEmpty)
    }

    @Test func `a call that comes after its result is answered at once`() throws {
        var server = try Self.server()
        #expect(server.give([("toolu_1", ["content": ["one"]]), ("toolu_2", ["content": ["two"]])]).isEmpty)
        // Not before the first one's.
        #expect(try Self.answer(&server, Self.call(2, "toolu_2")) == nil)
        #expect(try Self.answer(&server, Self.call(1, "toolu_1"))?["result"] == ["content": ["one"]])
        #expect(try Self.answers(server.told("toolu_1")).count == 1)
    }

    /// The order is worth less than an answer.
    @Test func `a CLI that tells of no result before it has all gets the rest in the end`() throws {
        var server = try Self.server()
        for id in [1, 2, 3] { #expect(try Self.answer(&server, Self.call(id, "toolu_\(id)")) == nil) }
        #expect(server.heartbeat().isEmpty)
        #expect(try Self.answers(server.give((1...3).map { ("toolu_\($0)", [:]) })).count == 1)
        for _ in 1...3 { #expect(server.heartbeat().isEmpty) }
        #expect(try Self.answers(server.heartbeat()).map { $0?["id"] } == [2, 3])
        for _ in 1...9 { #expect(server.heartbeat().isEmpty) }
    }

    @Test func `a call without the model's id can't be answered`() throws {
        var server = try Self.server()
        #expect(try Self.answer(&server, ["id": 3, "method": "tools/call"]) == nil)
        #expect(server.hasUnknownCall)
    }
}
