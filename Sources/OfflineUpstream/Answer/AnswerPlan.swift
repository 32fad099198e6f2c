import Dialects

/// Everything an answer consists of, decided before its first byte is sent.
struct AnswerPlan: Sendable, Equatable {
    /// A part of the answer's content.
    enum Block: Sendable, Equatable {
        /// Thinking; empty where the request wants none of it shown.
        case thinking(String)
        /// Thinking that nobody can read.
        case redactedThinking
        /// Text; the citation is a source's text that it quotes.
        case text(TextPieces, citation: String?)
        /// A tool call; half of its input where `isWhole` is false.
        case toolUse(id: String, Directives.Tool, isWhole: Bool)
    }

    /// What stands in for the signature of a thinking block.
    static let signature = "b2ZmbGluZSB1cHN0cmVhbQ=="
    /// What stands in for thinking that nobody can read.
    static let redactedData = "cmVkYWN0ZWQgdGhpbmtpbmc="

    /// The message's id.
    let id: String
    /// The model that was asked for.
    let model: String
    /// The content in order: thinking, text, tool calls.
    let blocks: [Block]
    /// Why the answer ends.
    let stopReason: String
    /// The stop sequence at which the answer ends.
    let stopSequence: String?
    /// The input side of the token usage.
    let usage: Directives.InputUsage
    /// What goes wrong, at a place that the text reaches.
    let fault: Directives.Fault?
    /// The wait before the first content.
    let firstDelay: Duration
    /// The wait between two pieces of text.
    let pieceDelay: Duration

    /// Plans the answer to a request.
    ///
    /// - Parameter unique: What makes this answer's ids differ from all others.
    init(_ request: UpstreamRequest, _ directives: Directives, unique: String) {
        id = "msg_offline_\(unique)"
        model = request.model
        let calls = Self.calls(directives, request)
        let text = Self.text(directives, request, calls)
        var planned: [Block] = []
        if request.thinking != .off {
            if let text = directives.thinking { planned.append(.thinking(request.thinking == .shown ? text : "")) }
            if directives.redacts { planned.append(.redactedThinking) }
        }
        planned.append(.text(text, citation: nil))
        if let quote = directives.citation { planned.append(.text(TextPieces(cutting: quote), citation: quote)) }
        for (number, tool) in calls.enumerated() {
            planned.append(.toolUse(id: "toolu_offline_\(unique)_\(number)", tool, isWhole: true))
        }
        let limited = Self.limit(
            planned, maximumTokens: request.maximumTokens ?? .max,
            stopSequences: directives.ignoresStop ? [] : request.stopSequences)
        // A block without text is left out, as the API does; the place of a fault must exist.
        blocks = limited.blocks.filter { block in
            if case .text(let pieces, _) = block { pieces.count > 0 || directives.fault != nil } else { true }
        }
        stopReason = directives.stopReason ?? limited.ending.reason ?? (calls.isEmpty ? "end_turn" : "tool_use")
        stopSequence = stopReason == "stop_sequence" ? limited.ending.sequence : nil
        usage = directives.usage ?? Directives.InputUsage(input: request.inputTokens)
        let reached = limited.blocks.lazy.compactMap { block -> Int? in
            if case .text(let pieces, nil) = block { pieces.count } else { nil }
        }.first
        fault = directives.fault.map {
            Directives.Fault(kind: $0.kind, afterPieces: min($0.afterPieces, reached ?? 0), recurrence: $0.recurrence)
        }
        firstDelay = directives.firstDelay
        pieceDelay = directives.pieceDelay
    }

    /// The tools that are called: those that were ordered, the structured output, or the one that the request insists on.
    private static func calls(_ directives: Directives, _ request: UpstreamRequest) -> [Directives.Tool] {
        if request.toolChoice == .none { return [] }
        var calls = directives.tools
        let hasText = directives.text != nil || directives.citation != nil || directives.fault != nil
        if calls.isEmpty, !hasText, !request.turn.isOutputAccepted {
            calls = request.tools.filter { $0.name == UpstreamRequest.outputTool }.map {
                call(of: $0, directives, request)
            }
        }
        if calls.isEmpty, let forced = request.forcedTool { calls = [call(of: forced, directives, request)] }
        return request.allowsParallelCalls ? calls : Array(calls.prefix(1))
    }

    /// A call that no directive spells out.
    private static func call(
        of tool: UpstreamRequest.Tool, _ directives: Directives, _ request: UpstreamRequest
    ) -> Directives.Tool {
        if tool.name != UpstreamRequest.outputTool {
            return Directives.Tool(name: tool.name, input: SchemaExample.input(for: tool.schema))
        }
        let input =
            request.turn.outputs < directives.badOutputs
            ? SchemaExample.misfit(for: tool.schema)
            : directives.output ?? SchemaExample.input(for: tool.schema)
        return Directives.Tool(name: tool.name, input: input)
    }

    private static func text(
        _ directives: Directives, _ request: UpstreamRequest, _ calls: [Directives.Tool]
    ) -> TextPieces {
        switch directives.text {
        case .say(let text): return TextPieces(cutting: text)
        case .echo: return TextPieces(cutting: request.prompt)
        case .tokens(let count): return .counted(count)
        case nil: break
        }
        // A fault without a text brings the text that it needs, so that a test knows every byte.
        if let fault = directives.fault { return .counted(fault.afterPieces) }
        if !calls.isEmpty || directives.citation != nil { return .counted(0) }
        // Without the tool for it, JSON that was ordered is text.
        if let output = directives.output, !request.turn.isOutputAccepted {
            return TextPieces(cutting: String(decoding: JSONWriter.bytes(output), as: UTF8.self))
        }
        return TextPieces(cutting: cannedText(prompt: request.prompt))
    }

    private static func cannedText(prompt: String) -> String {
        let count = prompt.unicodeScalars.count
        let about = count == 0 ? "your request" : "your prompt of \(count) character\(count == 1 ? "" : "s")"
        return "This is a canned answer from the offline upstream of claude-fcgi; no model has read \(about). "
            + "For real answers log in with `claude` or set ANTHROPIC_API_KEY, then restart."
    }

    /// How long a whole answer takes at the planned pace.
    var wholeDelay: Duration {
        let gaps = blocks.reduce(0) { sum, block in
            if case .text(let pieces, _) = block { sum + max(0, pieces.count - 1) } else { sum }
        }
        return firstDelay + pieceDelay * gaps
    }
}
