import Dialects
import Testing

@Suite struct DirectStreamTests {
    private static let context = DirectContext(id: "run-1", sessionID: "ses-1", workingDirectory: "/srv/w")
    private static let error = APIError(.forbidden, "No.", parameter: "addDirs[0]")

    private static func summary() throws -> RunSummary {
        var summary = RunSummary(
            result: "Done.", usage: TokenUsage(input: 20, output: 9, cacheRead: 3, cacheCreation: 2, thinking: 1),
            costUSD: 0.021, turnCount: 2, sessionID: "cli")
        summary.denials = [
            ["tool_name": "Write", "tool_use_id": "toolu_2", "tool_input": ["file_path": "/etc/x"]]
        ]
        return summary
    }

    /// A loop: a thought, a text, two calls of which one is denied, a last text.
    private static func loop() throws -> [RunEvent] {
        [
            .started(sessionID: "cli", model: "m"),
            .messageStarted(id: "msg_1", model: "m", usage: TokenUsage(input: 10)),
            .blockStarted(.thinking), .thinking("Hm"), .signature("s"), .blockEnded,
            .blockStarted(.text), .text("I \"look\""), .text("."), .blockEnded,
            .blockStarted(.toolUse(id: "toolu_1", name: "Bash")), .toolInput(#"{"command":"#), .toolInput(#""ls"}"#),
            .blockEnded,
            .blockStarted(.toolUse(id: "toolu_2", name: "Write")), .blockEnded,
            .messageEnded(stopReason: .toolUse, usage: TokenUsage(input: 10, output: 4)),
            .toolResult(["type": "tool_result", "tool_use_id": "toolu_1", "content": "a.txt"]),
            .toolResult([
                "type": "tool_result", "tool_use_id": "toolu_2", "is_error": true,
                "content": [["type": "text", "text": "denied"]],
            ]),
            .rateLimit(try #require(RateLimit(["status": "allowed"]))),
            .messageStarted(id: "msg_2", model: "m", usage: TokenUsage(input: 10)),
            .blockStarted(.text), .text("Done."), .blockEnded,
            .messageEnded(stopReason: .endTurn, usage: TokenUsage(input: 10, output: 5)),
            .finished(try summary()), .answered,
        ]
    }

    private static let reply =
        #"{"id":"run-1","result":"Done.","sessionId":"ses-1","durationMs":1848,"model":"m","stopReason":"end_turn","turns":2,"#
        + #""workingDirectory":"/srv/w","usage":{"inputTokens":20,"outputTokens":9,"cacheReadTokens":3,"cacheCreationTokens":2,"#
        + #""thinkingTokens":1},"costUsd":0.021,"toolsUsed":[{"name":"Bash","count":1},{"name":"Write","count":1}],"#
        + #""permissionDenials":[{"tool":"Write","toolUseId":"toolu_2","input":{"file_path":"/etc/x"}}],"structuredOutput":null}"#

    private func stream(_ events: [RunEvent], numbersEvents: Bool = false) -> (text: String, stream: DirectStream) {
        var stream = DirectStream(context: Self.context, numbersEvents: numbersEvents) { .milliseconds(1848) }
        var out: [UInt8] = []
        for event in events { stream.encode(event, into: &out) }
        return (String(decoding: out, as: UTF8.self), stream)
    }

    @Test func `a tool loop's stream`() throws {
        let (text, stream) = stream(try Self.loop())
        #expect(
            text == """
                event: start
                data: {"id":"run-1","sessionId":"ses-1","model":"m","workingDirectory":"/srv/w"}

                event: thinking
                data: {"text":"Hm"}

                event: text
                data: {"text":"I \\"look\\""}

                event: text
                data: {"text":"."}

                event: tool_use
                data: {"id":"toolu_1","name":"Bash","input":{"command":"ls"}}

                event: tool_use
                data: {"id":"toolu_2","name":"Write","input":{}}

                event: usage
                data: {"inputTokens":10,"outputTokens":4,"cacheReadTokens":0,"cacheCreationTokens":0,"thinkingTokens":0}

                event: tool_result
                data: {"toolUseId":"toolu_1","isError":false,"content":"a.txt"}

                event: tool_result
                data: {"toolUseId":"toolu_2","isError":true,"content":[{"type":"text","text":"denied"}]}

                event: text
                data: {"text":"Done."}

                event: usage
                data: {"inputTokens":10,"outputTokens":5,"cacheReadTokens":0,"cacheCreationTokens":0,"thinkingTokens":0}

                event: result
                data: \(Self.reply)


                """)
        #expect(stream.reply.map { DialectsTests.text($0) } == Self.reply)
    }

    @Test func `the whole reply is what a stream ends with`() throws {
        var answer = Answer()
        for event in try Self.loop() { answer.append(event) }
        #expect(text(DirectReply.whole(answer, context: Self.context, duration: .milliseconds(1848))) == Self.reply)
    }

    @Test func `a background run's events are numbered from one, without a gap`() throws {
        let lines = stream(try Self.loop(), numbersEvents: true).text.split(separator: "\n")
        let ids = lines.filter { $0.hasPrefix("id: ") }
        #expect(ids.map { String($0) } == (1...12).map { "id: \($0)" })
        #expect(lines.filter { $0.hasPrefix("event: ") }.count == ids.count)
        #expect(lines.first == "id: 1")
    }

    @Test func `a failure is the error of a refusal, and the last event`() throws {
        var (_, stream) = stream(Array(try Self.loop().prefix(4)))
        var out: [UInt8] = []
        stream.encode(failure: Self.error, requestID: "r", into: &out)
        for event in try Self.loop() { stream.encode(event, into: &out) }
        stream.encode(failure: Self.error, requestID: "r", into: &out)
        #expect(
            String(decoding: out, as: UTF8.self)
                == "event: error\ndata: {\"code\":\"forbidden\",\"message\":\"No.\",\"details\":{\"parameter\":\"addDirs[0]\"}}\n\n"
        )
        #expect(stream.reply == nil)
    }

    @Test func `nothing is sent before the model says something`() {
        #expect(stream([.started(sessionID: "cli", model: "m")]).text.isEmpty)
    }

    @Test(
        arguments: [
            ("error_max_turns", "max_turns"), ("error_max_budget_usd", "max_budget"), ("success", "tool_use"),
        ])
    func `a limit of the caller's is a reason to stop`(_ ending: String, _ reason: String) throws {
        var answer = Answer()
        for event in try Self.loop().prefix(17) { answer.append(event) }
        var summary = RunSummary(result: "", usage: TokenUsage(), costUSD: nil, turnCount: 3, sessionID: "cli")
        summary.ending = ending
        answer.append(.finished(summary))
        var context = Self.context
        context.sessionID = nil
        let reply = DirectReply.whole(answer, context: context, duration: .zero)
        #expect(reply["stopReason"] == .string(reason))
        #expect(reply["result"] == #"I "look"."# && reply["turns"] == 1)
        #expect(reply["sessionId"] == .null && reply["costUsd"] == .null)
    }

    @Test func `a structured answer is whole although the model called its tool last`() throws {
        var answer = Answer()
        for event in try Self.loop().prefix(17) { answer.append(event) }
        var summary = try Self.summary()
        summary.structuredOutput = ["a": 1]
        answer.append(.finished(summary))
        let reply = DirectReply.whole(answer, context: Self.context, duration: .zero)
        #expect(reply["stopReason"] == "end_turn" && reply["structuredOutput"] == ["a": 1])
    }

    @Test func `progress counts messages, calls and characters`() throws {
        var progress = DirectProgress()
        var steps = 0
        for event in try Self.loop() where progress.append(event) { steps += 1 }
        #expect(text(progress.json) == #"{"turns":2,"toolCalls":2,"textLength":14,"lastTool":"Write"}"#)
        #expect(steps == 4)
        #expect(text(DirectProgress().json) == #"{"turns":0,"toolCalls":0,"textLength":0,"lastTool":null}"#)
    }
}
