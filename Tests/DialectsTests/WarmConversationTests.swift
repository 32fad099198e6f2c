import Dialects
import Testing

/// How a request comes to a process that is warm.
@Suite struct WarmConversationTests {
    private static func lines(
        _ change: (inout RunRequest) -> Void, model: String? = "sonnet", defaultModel: String? = nil
    ) -> [String] {
        var request = RunRequest(turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
        change(&request)
        var conversation = ClaudeConversation(request, model: model, entry: .warm(defaultModel: defaultModel))
        return conversation.start().flatMap { action -> [String] in
            guard case .write(let bytes) = action else { return [] }
            return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { String($0) }
        }
    }

    private static let settings =
        #"{"type":"control_request","request_id":"settings","request":{"subtype":"apply_flag_settings","settings":{"model":"sonnet"}}}"#

    @Test func `the system prompt goes with the model`() {
        #expect(
            Self.lines { $0.system = ["A", "", "B"] } == [
                #"{"type":"control_request","request_id":"model","request":{"subtype":"set_model","model":"sonnet","system_prompt":"A\n\nB"}}"#,
                Self.settings,
            ])
    }

    @Test(arguments: [[], [""], ["", ""]])
    func `without a system prompt the settings are enough`(_ system: [String]) {
        #expect(Self.lines { $0.system = system } == [Self.settings])
    }

    /// The CLI takes its vendor's default for a model that is not named there.
    @Test(arguments: [(nil, #""set_model","system_prompt""#), ("opus", #""set_model","model":"opus","system_prompt""#)])
    func `the operator's default stays`(_ defaultModel: String?, _ words: String) {
        let lines = Self.lines({ $0.system = ["A"] }, model: nil, defaultModel: defaultModel)
        #expect(lines[0].contains(words))
    }

    @Test func `a request that changes nothing is asked at once`() {
        let lines = Self.lines({ _ in }, model: nil)
        #expect(lines.count == 1 && lines[0].contains(#""type":"user""#))
    }

    @Test func `all is acknowledged and the tools are known before the model is asked`() {
        var request = RunRequest(system: ["A"], turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
        request.thinking = .summarized
        request.tools = [.init(name: "get", definition: JSONObject([("name", "get")]))]
        let acknowledgements = ["model", "servers", "settings", "thinking"].map {
            #"{"type":"control_response","response":{"subtype":"success","request_id":"\#($0)","response":{"added":["client"],"removed":[],"errors":{}}}}"#
        }
        let listed =
            #"{"type":"control_request","request_id":"l","request":{"subtype":"mcp_message","message":{"id":1,"method":"tools/list"}}}"#
        for order in [acknowledgements + [listed], [listed] + acknowledgements.reversed()] {
            var conversation = ClaudeConversation(request, model: "sonnet", entry: .warm(defaultModel: nil))
            let first = conversation.start()
            guard case .write(let bytes)? = first.first, first.count == 1 else {
                Issue.record("one write was expected")
                return
            }
            #expect(
                String(decoding: bytes, as: UTF8.self).contains(
                    #""request_id":"servers","request":{"subtype":"mcp_set_servers","servers":{"client":{"type":"sdk","name":"client"}}}"#
                ))
            var asked: [String] = []
            for (index, line) in order.enumerated() {
                for case .write(let bytes) in conversation.receive(Array(line.utf8), in: 0..<line.utf8.count) {
                    let text = String(decoding: bytes, as: UTF8.self)
                    guard text.contains(#""type":"user""#) else { continue }
                    asked.append(text)
                    #expect(index == order.count - 1)
                }
            }
            #expect(asked.count == 1)
        }
    }

    @Test(arguments: [
        #""subtype":"error","error":"no""#, #""subtype":"success","response":{"errors":{"client":"no"}}"#,
    ])
    func `a CLI that does not take the tools is a failure of its own`(_ members: String) {
        var request = RunRequest(turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
        request.tools = [.init(name: "get", definition: JSONObject([("name", "get")]))]
        var conversation = ClaudeConversation(request, model: nil, entry: .warm(defaultModel: nil))
        _ = conversation.start()
        let line = #"{"type":"control_response","response":{"request_id":"servers",\#(members)}}"#
        let actions = conversation.receive(Array(line.utf8), in: 0..<line.utf8.count)
        guard case .event(.failed(let error))? = actions.first else {
            Issue.record("a failure was expected")
            return
        }
        #expect(error.kind == .cli)
        #expect(error.cause == "no")
        #expect(conversation.isEnded)
    }
}
