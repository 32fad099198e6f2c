import Dialects
import Testing

/// Responses, whole and streamed.
@Suite struct ResponsesReplyTests {
    private static let context = ReplyContext(requestID: "req-9", created: 7)
    private static let usage = TokenUsage(input: 1, output: 2, cacheRead: 3, cacheCreation: 4, thinking: 1)
    private static let thought: [RunEvent] = [
        .blockStarted(.thinking), .thinking("h"), .thinking("m"), .signature("sig"), .blockEnded,
    ]
    private static let texts: [RunEvent] = [
        .blockStarted(.text), .text("a\n"), .text("\u{2028}b"), .blockEnded, .blockStarted(.text), .text("c"),
        .blockEnded,
    ]
    private static let call: [RunEvent] = [
        .blockStarted(.toolUse(id: "toolu_1", name: "f")), .toolInput(#"{"a""#), .toolInput(":1}"), .blockEnded,
    ]

    private static func events(_ content: [RunEvent], _ reason: StopReason = .endTurn) -> [RunEvent] {
        [.started(sessionID: "s", model: "m0"), .messageStarted(id: "msg_1", model: "m", usage: TokenUsage(input: 1))]
            + content + [.messageEnded(stopReason: reason, usage: usage), .answered]
    }

    private static func whole(_ events: [RunEvent], _ members: String = "") throws -> JSONValue {
        var answer = Answer()
        for event in events { answer.append(event) }
        return ResponsesReply.whole(
            answer, request: try ResponsesRequest.decode(try json(#"{"model":"ask","input":"x""# + members + "}")),
            context: context, id: "resp_1", completedAt: 9)
    }

    private static func encoder(_ members: String) throws -> ResponsesStream {
        ResponsesStream(
            request: try ResponsesRequest.decode(try json(#"{"model":"ask","input":"x""# + members + "}")),
            context: context, id: "resp_1", now: { 9 })
    }

    /// The events' data; their names are checked on the way.
    private static func parse(_ out: [UInt8]) throws -> [JSONValue] {
        let stream = String(decoding: out, as: UTF8.self)
        #expect(stream.hasSuffix("\n\n"))
        return try stream.dropLast(2).split(separator: "\n\n", omittingEmptySubsequences: false).enumerated().map {
            index, event in
            let lines = event.split(separator: "\n")
            try #require(lines.count == 2)
            let data = try json(String(lines[1].dropFirst("data: ".count)))
            #expect("event: \(data["type"]?.stringValue ?? "")" == lines[0])
            #expect(data["sequence_number"] == .integer(index))
            return data
        }
    }

    private static func stream(_ events: [RunEvent], _ members: String = "") throws -> [JSONValue] {
        var encoder = try encoder(members)
        var out: [UInt8] = []
        for event in events { encoder.encode(event, into: &out) }
        let data = try parse(out)
        #expect(encoder.response == data.last?["response"])
        return data
    }

    private static func types(_ events: [JSONValue]) -> [String] {
        events.map { String(($0["type"]?.stringValue ?? "").dropFirst("response.".count)) }
    }

    @Test func `a whole response has what the vendor's has`() throws {
        #expect(
            text(try Self.whole(Self.events(Self.texts), #","metadata":{"k":"v"},"temperature":0.10"#))
                == #"{"id":"resp_1","object":"response","created_at":7,"status":"completed","completed_at":9,"#
                + #""error":null,"incomplete_details":null,"model":"m","output":[{"id":"msg_1_0","type":"message","#
                + #""status":"completed","role":"assistant","content":[{"type":"output_text","text":"a\n"#
                + "\u{2028}"
                + #"b","annotations":[],"logprobs":[]},{"type":"output_text","text":"c","annotations":[],"#
                + #""logprobs":[]}]}],"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"#
                + #""parallel_tool_calls":true,"previous_response_id":null,"reasoning":{"effort":null,"#
                + #""summary":null},"store":true,"background":false,"temperature":0.10,"top_p":1,"#
                + #""presence_penalty":0,"frequency_penalty":0,"top_logprobs":0,"text":{"format":{"type":"text"}},"#
                + #""tool_choice":"auto","tools":[],"truncation":"disabled","service_tier":"default","#
                + #""metadata":{"k":"v"},"user":null,"safety_identifier":null,"prompt_cache_key":null,"#
                + #""prompt_cache_retention":null,"usage":{"input_tokens":8,"input_tokens_details":"#
                + #"{"cached_tokens":3,"cache_write_tokens":4},"output_tokens":2,"output_tokens_details":"#
                + #"{"reasoning_tokens":1},"total_tokens":10}}"#)
    }

    @Test(arguments: [
        (StopReason.endTurn, "completed", nil), (.toolUse, "completed", nil), (.stopSequence("x"), "completed", nil),
        (.maxTokens, "incomplete", "max_output_tokens"), (.refusal, "incomplete", "content_filter"),
        (.other("model_context_window_exceeded"), "incomplete", "max_output_tokens"),
    ])
    func `a response ends as the model did`(_ reason: StopReason, _ status: String, _ why: String?) throws {
        let events = Self.events(Self.thought + Self.texts + Self.call, reason)
        let reply = try Self.whole(events)
        #expect(reply["status"] == .string(status))
        #expect(reply["incomplete_details"]?["reason"] == why.map { .string($0) })
        #expect(reply["completed_at"] == (why == nil ? 9 : .null))
        let items = try #require(reply["output"]?.arrayValue)
        #expect(items.map { $0["status"] } == ["completed", .string(status)])
        let last = try Self.stream(events).last
        #expect(last?["type"] == .string("response.\(status)"))
        #expect(last?["response"] == reply)
    }

    @Test(arguments: [
        ("", [String](), false), (#","reasoning":{"summary":"auto"}"#, ["hm"], false),
        (#","reasoning":{"effort":"low"},"include":["reasoning.encrypted_content"]"#, [], true),
        (#","reasoning":{"summary":"auto"},"include":["reasoning.encrypted_content"]"#, ["hm"], true),
    ])
    func `thinking is shown only where it was asked for`(
        _ members: String, _ summary: [String], _ isEncrypted: Bool
    ) throws {
        let events = Self.events(Self.thought + Self.texts)
        let items = try #require(try Self.whole(events, members)["output"]?.arrayValue)
        let stream = try Self.stream(events, members)
        #expect(stream.last?["response"]?["output"] == .array(items))
        #expect(Self.types(stream).contains("reasoning_summary_text.delta") == !summary.isEmpty)
        guard isEncrypted || !summary.isEmpty else {
            #expect(items.map { $0["type"] } == ["message"])
            return
        }
        #expect(items.map { $0["id"] } == ["rs_1_0", "msg_1_1"])
        #expect(items[0]["summary"]?.arrayValue?.map { $0["text"]?.stringValue ?? "" } == summary)
        #expect((items[0]["encrypted_content"] != nil) == isEncrypted)
    }

    @Test func `a stream has the vendor's events in the vendor's order`() throws {
        let events = try Self.stream(
            Self.events(Self.thought + Self.texts + Self.call, .toolUse), #","reasoning":{"summary":"auto"}"#)
        #expect(
            Self.types(events) == [
                "created", "in_progress", "output_item.added", "reasoning_summary_part.added",
                "reasoning_summary_text.delta", "reasoning_summary_text.delta", "reasoning_summary_text.done",
                "reasoning_summary_part.done", "output_item.done", "output_item.added", "content_part.added",
                "output_text.delta", "output_text.delta", "output_text.done", "content_part.done",
                "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
                "output_item.done", "output_item.added", "function_call_arguments.delta",
                "function_call_arguments.delta", "function_call_arguments.done", "output_item.done", "completed",
            ])
        #expect(events[0]["response"]?["status"] == "in_progress")
        #expect(events[0]["response"]?["model"] == "m")
        #expect(events[0]["response"]?["output"] == [])
        let done = events.filter { $0["type"] == "response.output_item.done" }
        #expect(.array(done.compactMap { $0["item"] }) == events.last?["response"]?["output"])
        #expect(done.map { $0["output_index"] } == [0, 1, 2])
        #expect(
            text(events[11])
                == #"{"type":"response.output_text.delta","item_id":"msg_1_1","output_index":1,"content_index":0,"#
                + #""delta":"a\n","logprobs":[],"sequence_number":11}"#)
        #expect(events[16]["content_index"] == 1)
        #expect(
            text(events[23])
                == #"{"type":"response.function_call_arguments.done","sequence_number":23,"item_id":"fc_1_2","#
                + #""output_index":2,"name":"f","arguments":"{\"a\":1}"}"#)
        #expect(
            text(events[20]["item"] ?? .null)
                == #"{"id":"fc_1_2","type":"function_call","status":"in_progress","call_id":"toolu_1","name":"f","#
                + #""arguments":""}"#)
    }

    @Test func `hidden thinking between texts does not end the message`() throws {
        let events = Self.events(Self.texts + Self.thought + Self.texts)
        let stream = try Self.stream(events)
        #expect(Self.types(stream).filter { $0 == "output_item.done" }.count == 1)
        #expect(stream.last?["response"] == (try Self.whole(events)))
        #expect(stream.last?["response"]?["output"]?.arrayValue?.first?["content"]?.arrayValue?.count == 4)
    }

    @Test func `a call without input is called with an empty object`() throws {
        let events = Self.events([.blockStarted(.toolUse(id: "t", name: "f")), .blockEnded], .toolUse)
        let stream = try Self.stream(events)
        #expect(stream.first { $0["type"] == "response.function_call_arguments.delta" }?["delta"] == "{}")
        #expect(stream.last?["response"]?["output"]?.arrayValue?.first?["arguments"] == "{}")
    }

    @Test func `a stream without content is well-formed`() throws {
        #expect(Self.types(try Self.stream(Self.events([]))) == ["created", "in_progress", "completed"])
    }

    @Test func `a stream that fails tells so, from its first event on`() throws {
        let error = APIError(.rateLimit, "Too much.")
        for (events, count) in [([], 2), (Array(Self.events(Self.texts).dropLast(2)), 12)] as [([RunEvent], Int)] {
            var encoder = try Self.encoder("")
            var out: [UInt8] = []
            for event in events { encoder.encode(event, into: &out) }
            encoder.encode(failure: error, requestID: "r", into: &out)
            encoder.encode(.answered, into: &out)
            let data = try Self.parse(out)
            #expect(Self.types(data).first == "created")
            #expect(data.count == count + 1)
            #expect(data.last?["type"] == "response.failed")
            let response = try #require(data.last?["response"])
            #expect(response["status"] == "failed")
            #expect(response["error"] == ["code": "rate_limit_exceeded", "message": "Too much."])
            #expect(encoder.response == response)
        }
    }

    @Test func `a response has a state before its answer and after`() throws {
        let request = try ResponsesRequest.decode(["input": "x", "model": "ask", "background": true])
        let queued = ResponsesReply.state(.queued, request: request, context: Self.context, id: "resp_1")
        #expect(queued["status"] == "queued")
        #expect(queued["model"] == "ask")
        #expect(queued["background"] == true)
        #expect(queued["usage"] == .null)
        #expect(ResponsesReply.changed(queued, to: .cancelled)["status"] == "cancelled")
        let failed = ResponsesReply.changed(queued, to: .failed, error: APIError(.cli, "Broken."))
        #expect(failed["error"] == ["code": "server_error", "message": "Broken."])
    }
}
