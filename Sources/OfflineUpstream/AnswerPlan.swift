import Dialects

/// A text in the pieces in which it is streamed.
enum TextPieces: Sendable, Equatable {
    /// The text itself, cut as ``init(cutting:)`` does.
    case literal([String])
    /// `tok0 tok1 …`, made when they are sent.
    case counted(Int)

    /// Cuts at spaces into pieces of a few words; a run without spaces is cut at 48 bytes, never inside a character's bytes.
    init(cutting text: String) {
        var pieces: [String] = []
        let utf8 = text.utf8
        var start = utf8.startIndex
        var length = 0
        for index in utf8.indices {
            let isContinuation = utf8[index] & 0xC0 == 0x80
            if length >= 48, !isContinuation {
                pieces.append(String(text[start..<index]))
                start = index
                length = 0
            }
            length += 1
            if length >= 12, utf8[index] == UInt8(ascii: " ") {
                let end = utf8.index(after: index)
                pieces.append(String(text[start..<end]))
                start = end
                length = 0
            }
        }
        if length > 0 { pieces.append(String(text[start...])) }
        self = .literal(pieces)
    }

    /// How many pieces there are.
    var count: Int {
        switch self {
        case .literal(let pieces): pieces.count
        case .counted(let count): count
        }
    }

    /// One piece.
    subscript(_ index: Int) -> String {
        switch self {
        case .literal(let pieces): pieces[index]
        case .counted: "tok\(index) "
        }
    }

    /// All pieces in one.
    var joined: String { (0..<count).reduce(into: "") { $0 += self[$1] } }
}

/// Everything an answer consists of, decided before its first byte is sent.
struct AnswerPlan: Sendable, Equatable {
    /// A part of the answer's content.
    enum Block: Sendable, Equatable {
        case thinking(String)
        case text(TextPieces)
        case toolUse(id: String, Directives.Tool)
    }

    /// What stands in for the signature of a thinking block.
    static let signature = "b2ZmbGluZSB1cHN0cmVhbQ=="

    /// The message's id.
    let id: String
    /// The model that was asked for.
    let model: String
    /// The content in order: thinking, text, tool calls.
    let blocks: [Block]
    /// Why the answer ends.
    let stopReason: String
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
        var blocks: [Block] = []
        if let thinking = directives.thinking { blocks.append(.thinking(thinking)) }
        let text = Self.text(of: directives, request)
        // A block without text is left out, as the API does; the place of a fault must exist.
        if text.count > 0 || directives.fault != nil { blocks.append(.text(text)) }
        for (number, tool) in directives.tools.enumerated() {
            blocks.append(.toolUse(id: "toolu_offline_\(unique)_\(number)", tool))
        }
        self.blocks = blocks
        stopReason = directives.stopReason ?? (directives.tools.isEmpty ? "end_turn" : "tool_use")
        usage = directives.usage ?? Directives.InputUsage(input: request.inputTokens)
        fault = directives.fault.map {
            Directives.Fault(kind: $0.kind, afterPieces: min($0.afterPieces, text.count), recurrence: $0.recurrence)
        }
        firstDelay = directives.firstDelay
        pieceDelay = directives.pieceDelay
    }

    private static func text(of directives: Directives, _ request: UpstreamRequest) -> TextPieces {
        switch directives.text {
        case .say(let text): return TextPieces(cutting: text)
        case .echo: return TextPieces(cutting: request.prompt)
        case .tokens(let count): return .counted(count)
        case nil: break
        }
        // A fault without a text brings the text that it needs, so that a test knows every byte.
        if let fault = directives.fault { return .counted(fault.afterPieces) }
        return directives.tools.isEmpty ? TextPieces(cutting: cannedText(prompt: request.prompt)) : .counted(0)
    }

    private static func cannedText(prompt: String) -> String {
        let count = prompt.unicodeScalars.count
        let about = count == 0 ? "your request" : "your prompt of \(count) character\(count == 1 ? "" : "s")"
        return "This is a canned answer from the offline upstream of claude-fcgi; no model has read \(about). "
            + "For real answers log in with `claude` or set ANTHROPIC_API_KEY, then restart."
    }

    /// The number of pieces of content, which stand for output tokens.
    var outputTokens: Int {
        blocks.reduce(0) { sum, block in
            switch block {
            case .thinking: sum + 1
            case .text(let pieces): sum + pieces.count
            case .toolUse: sum + 2
            }
        }
    }

    /// How long a whole answer takes at the planned pace.
    var wholeDelay: Duration {
        let gaps = blocks.reduce(0) { if case .text(let pieces) = $1 { $0 + max(0, pieces.count - 1) } else { $0 } }
        return firstDelay + pieceDelay * gaps
    }

    /// The `usage` object.
    func usageJSON(outputTokens: Int) -> JSONValue {
        [
            "input_tokens": .integer(usage.input), "cache_creation_input_tokens": .integer(usage.cacheCreation),
            "cache_read_input_tokens": .integer(usage.cacheRead), "output_tokens": .integer(outputTokens),
        ]
    }

    /// The answer as one Message object.
    var message: JSONValue {
        let content = blocks.map { block -> JSONValue in
            switch block {
            case .thinking(let text):
                ["type": "thinking", "thinking": .string(text), "signature": .string(Self.signature)]
            case .text(let pieces): ["type": "text", "text": .string(pieces.joined)]
            case .toolUse(let id, let tool):
                ["type": "tool_use", "id": .string(id), "name": .string(tool.name), "input": tool.input]
            }
        }
        return [
            "id": .string(id), "type": "message", "role": "assistant", "model": .string(model),
            "content": .array(content), "stop_reason": .string(stopReason), "stop_sequence": nil,
            "usage": usageJSON(outputTokens: outputTokens),
        ]
    }
}
