import Dialects
import Testing

/// Whatever a client does, the model is told by a process that was kept, or warm, what a fresh one would tell it.
@Suite struct LivePropertyTests {
    /// What a client does to the conversation before its next request.
    private enum Edit: CaseIterable {
        case none, otherModel, otherSystem, otherLimit, otherEffort, otherTools, editsTurn, editsAnswer
        case dropsTurns, saysMore, longResult, failedResult, emptyResult, reversesResults, differentThinking
    }

    /// A client, the service's bookkeeping of one kept process, and their random choices.
    private struct Talk {
        var generator: SeededGenerator
        var request: RunRequest
        var model: String?
        /// The process that has answered last, and what it is found by.
        var process: FakeProcess?
        var key: [UInt8] = []
        var calls = 0

        init(seed: UInt64) {
            generator = SeededGenerator(seed: seed)
            request = RunRequest(turns: [])
            model = Bool.random(using: &generator) ? nil : "sonnet"
            request.system = Array(
                ["", "Be brief.", " Two\nlines. "].shuffled(using: &generator).prefix(
                    Int.random(in: 0...3, using: &generator)))
            if Bool.random(using: &generator) { request.maxOutputTokens = 100 }
            if Bool.random(using: &generator) { request.effort = "low" }
            if Bool.random(using: &generator) { request.stopSequences = ["NEVER"] }
            if Bool.random(using: &generator) {
                request.tools = ["get", "Bash"].map { name in
                    RunRequest.Tool(
                        name: name,
                        definition: JSONObject([("name", .string(name)), ("input_schema", ["type": "object"])]))
                }
            }
            request.thinking =
                [.automatic, .off, .summarized, .native(["type": "adaptive"])].randomElement(using: &generator) ?? .off
        }

        /// What the model will say next.
        mutating func speech() -> FakeCLI.Speech {
            guard request.tools.first?.name == "get", Bool.random(using: &generator) else {
                return .text(["Yes.", " No\n", "é😀"].randomElement(using: &generator) ?? "")
            }
            return .calls(
                (0..<Int.random(in: 1...3, using: &generator)).map { _ in
                    calls += 1
                    let name = ["get", "mcp__client__Bash"].randomElement(using: &generator) ?? ""
                    return ("toolu_\(calls)", name, [#"{"a":[1,"x"]}"#, "{}"].randomElement(using: &generator) ?? "")
                })
        }

        /// The next turn: results of the calls, or words.
        mutating func nextTurn(_ edit: Edit) {
            let open = request.turns.last?.blocks.filter { $0["type"] == "tool_use" } ?? []
            var blocks = open.map { call -> JSONValue in
                let id = call["id"] ?? nil
                switch edit {
                case .longResult:
                    return [
                        "type": "tool_result", "tool_use_id": id,
                        "content": .string(String(repeating: "x", count: 45_001)),
                    ]
                case .failedResult:
                    return ["type": "tool_result", "tool_use_id": id, "content": "no", "is_error": true]
                case .emptyResult: return ["type": "tool_result", "tool_use_id": id]
                default:
                    let content: JSONValue =
                        Bool.random(using: &generator) ? "42" : [RunRequest.Turn.text("4"), RunRequest.Turn.text("2")]
                    return ["type": "tool_result", "tool_use_id": id, "content": content]
                }
            }
            if edit == .reversesResults { blocks.reverse() }
            if open.isEmpty || edit == .saysMore {
                blocks.append(RunRequest.Turn.text("Next \(Int.random(in: 0..<9, using: &generator))"))
            }
            request.turns.append(.init(role: .user, blocks: blocks))
        }

        /// Changes the conversation, and tells whether a kept process can go on with it nevertheless.
        mutating func change(_ edit: Edit) -> Bool {
            let callCount = request.turns.last?.blocks.count { $0["type"] == "tool_use" } ?? 0
            switch edit {
            case .none: return true
            case .saysMore, .longResult, .failedResult, .emptyResult: return callCount == 0
            case .reversesResults: return callCount < 2
            case .otherModel: model = model == "haiku" ? "sonnet" : "haiku"
            case .otherSystem: request.system.append("More.")
            case .otherLimit: request.maxOutputTokens = (request.maxOutputTokens ?? 0) + 1
            case .otherEffort: request.effort = request.effort == "high" ? nil : "high"
            case .otherTools:
                request.tools.append(
                    .init(
                        name: "t\(request.tools.count)",
                        definition: JSONObject([("name", .string("t\(request.tools.count)"))])))
            case .differentThinking: request.thinking = request.thinking == .off ? .automatic : .off
            case .editsTurn: request.turns[0].blocks.append(RunRequest.Turn.text("!"))
            case .editsAnswer:
                let place = request.turns.count - 1
                request.turns[place].blocks.insert(RunRequest.Turn.text("?"), at: 0)
            case .dropsTurns:
                guard request.turns.count > 2, request.turns[2].blocks.allSatisfy({ $0["type"] != "tool_result" })
                else { return true }
                request.turns.removeFirst(2)
            }
            return false
        }
    }

    /// - Returns: How often a process was gone on with.
    private func talk(seed: UInt64) throws -> Int {
        var talk = Talk(seed: seed)
        var resumed = 0
        for _ in 0..<6 {
            let edit =
                talk.request.turns.isEmpty || Bool.random(using: &talk.generator)
                ? .none : Edit.allCases.randomElement(using: &talk.generator) ?? .none
            let canGoOn = talk.request.turns.isEmpty ? false : talk.change(edit)
            talk.nextTurn(edit)
            let request = talk.request
            let speech = talk.speech()

            var key: [UInt8]?
            if let (history, new) = request.liveSplit {
                #expect(new == request.turns.last)
                key = ConversationKey.bytes(request: request, model: talk.model, client: "c", turns: history)
            }
            var process: FakeProcess
            if var kept = talk.process, key == talk.key {
                #expect(canGoOn, "\(edit)")
                #expect(request.canResume(openCalls: kept.openCalls))
                try kept.goOn(request, speech)
                process = kept
                resumed += 1
            } else {
                #expect(talk.process == nil || !canGoOn, "\(edit)")
                process = FakeProcess()
                let isWarm = Bool.random(using: &talk.generator)
                if isWarm { #expect(try process.warm()) }
                try process.begin(request, model: talk.model, entry: isWarm ? .warm(defaultModel: nil) : .cold, speech)
            }
            #expect(process.hasEnded)
            #expect(!process.cli.hasFailed)
            #expect(process.events.first == .started(sessionID: "s", model: "m"))

            var fresh = FakeProcess()
            try fresh.begin(request, model: talk.model, entry: .cold, speech)
            #expect(process.cli.prompts.last == fresh.cli.prompts.last, "\(edit)")
            #expect(process.answer.blocks == fresh.answer.blocks)

            try #require(process.isContinuable)
            talk.process = process
            talk.request.turns = request.turns(with: process.answer)
            talk.key = ConversationKey.bytes(
                request: request, model: talk.model, client: "c", turns: talk.request.turns)
        }
        return resumed
    }

    @Test func `a process that is kept tells the model what a fresh one would`() throws {
        var resumed = 0
        for seed in 0..<60 as Range<UInt64> { resumed += try talk(seed: seed) }
        #expect(resumed > 60)
    }
}
