// The stream of a direct run: start, then text, thinking, tool_use, tool_result and usage as they come, then result or error.
//
// It begins with the model's first content, so that a run whose upstream failed before can be tried again. Calls of tools
// are told when their input is whole. Nothing follows `result` and `error`.

/// Writes the events of a streamed, or of a background, run.
public struct DirectStream: StreamEncoder {
    private var context: DirectContext
    private let duration: @Sendable () -> Duration
    private let numbersEvents: Bool
    private var count = 0
    private var hasBegun = false
    private var hasEnded = false
    private var open: AnswerBlock.Kind?
    private var input = ""

    /// The answer so far.
    public private(set) var answer = Answer()
    /// The whole reply, once the stream has ended with it.
    public private(set) var reply: JSONValue?

    /// A stream's encoder.
    ///
    /// - Parameters:
    ///   - numbersEvents: Whether each event has an `id`, from 1 on: a reader can then go on behind the last one it saw.
    ///   - duration: How long the run has taken; asked once, for `result`.
    public init(
        context: DirectContext, numbersEvents: Bool = false, duration: @escaping @Sendable () -> Duration
    ) {
        self.context = context
        self.numbersEvents = numbersEvents
        self.duration = duration
    }

    /// Appends what the event becomes.
    public mutating func encode(_ event: RunEvent, into out: inout [UInt8]) {
        guard !hasEnded else { return }
        answer.append(event)
        switch event {
        case .messageStarted: begin(to: &out)
        case .blockStarted(let kind):
            open = kind
            input = ""
        case .text(let piece): append(piece, as: "text", to: &out)
        case .thinking(let piece): append(piece, as: "thinking", to: &out)
        case .toolInput(let piece): input += piece
        case .blockEnded:
            if case .toolUse(let id, let name) = open {
                let call = AnswerBlock(.toolUse(id: id, name: name), content: input)
                append("tool_use", ["id": .string(id), "name": .string(name), "input": call.input], to: &out)
            }
            open = nil
        case .toolResult(let block): append(result: block, to: &out)
        case .messageEnded(_, let usage): append("usage", usage.directJSON, to: &out)
        case .answered:
            begin(to: &out)
            let whole = DirectReply.whole(answer, context: context, duration: duration())
            append("result", whole, to: &out)
            reply = whole
            hasEnded = true
        case .started, .citation, .signature, .counted, .rateLimit, .finished, .failed: break
        }
    }

    /// Appends the `error` event.
    public mutating func encode(failure error: APIError, requestID: String, into out: inout [UInt8]) {
        guard !hasEnded else { return }
        append("error", DirectReply.error(error), to: &out)
        hasEnded = true
    }

    /// The reply's `sessionId` becomes null.
    public mutating func conversationIsNotKept() { context.sessionID = nil }

    /// The event that ends a stream whose writer is gone.
    ///
    /// - Parameter id: Its number; nil for none.
    public static func errorEvent(_ error: APIError, id: Int?) -> [UInt8] {
        var stream = DirectStream(
            context: DirectContext(id: "", sessionID: nil, workingDirectory: ""), numbersEvents: id != nil
        ) {
            .zero
        }
        stream.count = (id ?? 1) - 1
        var out: [UInt8] = []
        stream.encode(failure: error, requestID: "", into: &out)
        return out
    }

    private mutating func begin(to out: inout [UInt8]) {
        guard !hasBegun else { return }
        hasBegun = true
        append(
            "start",
            [
                "id": .string(context.id), "sessionId": context.sessionJSON, "model": .string(answer.model),
                "workingDirectory": .string(context.workingDirectory),
            ], to: &out)
    }

    private mutating func append(result block: JSONValue, to out: inout [UInt8]) {
        append(
            "tool_result",
            [
                "toolUseId": block["tool_use_id"] ?? .null, "isError": block["is_error"] ?? false,
                "content": block["content"] ?? "",
            ], to: &out)
    }

    private mutating func append(_ name: String, _ data: JSONValue, to out: inout [UInt8]) {
        appendHead(name, to: &out)
        ServerSentEvents.append(data: data, to: &out)
    }

    /// One piece of text: written without a tree, because there is one for each token.
    private mutating func append(_ piece: String, as name: String, to out: inout [UInt8]) {
        guard !piece.isEmpty else { return }
        appendHead(name, to: &out)
        JSONWriter.append(raw: #"data: {"text":"#, to: &out)
        JSONWriter.append(string: piece, to: &out)
        JSONWriter.append(raw: "}\n\n", to: &out)
    }

    private mutating func appendHead(_ name: String, to out: inout [UInt8]) {
        count += 1
        if numbersEvents { JSONWriter.append(raw: "id: \(count)\n", to: &out) }
        ServerSentEvents.append(event: name, to: &out)
    }
}
