// The stream of a response.
//
// Each part of the answer is opened, told in deltas and closed; a message has several parts where the model wrote several
// texts in a row. An item is closed only when the next begins or the answer ends, because only then it is known whether
// it is whole. Every event has a number; a snapshot of the response opens and closes the stream.

/// Writes the events of a streamed response.
public struct ResponsesStream: StreamEncoder {
    private struct OpenItem {
        var kind: ResponsesOutput.Kind
        var id: String
        var blocks: [AnswerBlock] = []
    }

    private let request: ResponsesRequest
    private let context: ReplyContext
    private let id: String
    private let now: @Sendable () -> Int
    private let output: ResponsesOutput
    private var unique = ""
    private var sequence = 0
    private var hasBegun = false
    private var items: [JSONValue] = []
    private var item: OpenItem?
    private var isPartOpen = false
    /// Whether the open part's first event has been written; a summary has none without a thought.
    private var isPartTold = false
    /// A delta event of the open part, up to the delta and from there to the number.
    private var deltaHead: [UInt8] = []
    private var deltaTail: [UInt8] = []

    /// The answer so far.
    public private(set) var answer = Answer()
    /// The response object that ended the stream, for the store; nil before.
    public private(set) var response: JSONValue?

    /// A stream's encoder.
    ///
    /// - Parameters:
    ///   - id: The response's id, `resp_…`.
    ///   - now: The time in seconds since 1970, for `completed_at`.
    public init(request: ResponsesRequest, context: ReplyContext, id: String, now: @escaping @Sendable () -> Int) {
        self.request = request
        self.context = context
        self.id = id
        self.now = now
        output = ResponsesOutput(request)
    }

    /// Appends what the event becomes.
    public mutating func encode(_ event: RunEvent, into out: inout [UInt8]) {
        guard response == nil else { return }
        // The open part's text is the last block's until the next begins.
        if case .blockStarted = event { endPart(to: &out) }
        answer.append(event)
        switch event {
        case .messageStarted: begin(to: &out)
        case .blockStarted(let kind): blockStarted(kind, to: &out)
        case .text(let piece), .toolInput(let piece): appendDelta(piece, to: &out)
        case .thinking(let piece):
            guard output.tellsThinking else { break }
            tellPart(to: &out)
            appendDelta(piece, to: &out)
        case .blockEnded: endPart(to: &out)
        case .answered: answered(to: &out)
        case .started, .citation, .signature, .toolResult, .messageEnded, .counted, .rateLimit, .finished, .failed:
            break
        }
    }

    /// Appends `response.failed`.
    ///
    /// Also where nothing was written yet, after `response.created`: the vendor's clients take no other first event.
    public mutating func encode(failure error: APIError, requestID: String, into out: inout [UInt8]) {
        guard response == nil else { return }
        begin(to: &out)
        let failed = snapshot(.failed, error: error)
        response = failed
        append("response.failed", [("response", failed)], to: &out)
    }

    // MARK: The response

    private mutating func begin(to out: inout [UInt8]) {
        guard !hasBegun else { return }
        hasBegun = true
        unique = OpenAIIdentifier.unique(answer.id, context)
        let started = snapshot(.inProgress)
        append("response.created", [("response", started)], to: &out)
        append("response.in_progress", [("response", started)], to: &out)
    }

    private mutating func answered(to out: inout [UInt8]) {
        begin(to: &out)
        endPart(to: &out)
        let isCut = ResponsesReply.cutReason(answer.stopReason) != nil
        endItem(status: isCut ? "incomplete" : "completed", to: &out)
        let whole = ResponsesReply.whole(answer, request: request, context: context, id: id, completedAt: now())
        response = whole
        append(isCut ? "response.incomplete" : "response.completed", [("response", whole)], to: &out)
    }

    private func snapshot(_ status: ResponsesStatus, error: APIError? = nil) -> JSONValue {
        ResponsesReply.state(
            status, error: error, request: request, context: context, id: id, model: answer.model, output: items)
    }

    // MARK: Items and parts

    private mutating func blockStarted(_ blockKind: AnswerBlock.Kind, to out: inout [UInt8]) {
        begin(to: &out)
        guard let kind = output.kind(blockKind) else { return }
        if item?.kind != .message || kind != .message {
            endItem(status: "completed", to: &out)
            let id = ResponsesOutput.id(kind, unique: unique, index: items.count)
            item = OpenItem(kind: kind, id: id)
            append(
                "response.output_item.added",
                [place, ("item", output.item(kind, [], id: id, status: "in_progress"))], to: &out)
        }
        isPartOpen = true
        isPartTold = false
        makeDelta(kind)
        if kind == .message { tellPart(to: &out) }
    }

    /// Opens the part of a message or a summary.
    private mutating func tellPart(to out: inout [UInt8]) {
        guard isPartOpen, !isPartTold, let item else { return }
        isPartTold = true
        let head = [id(of: item), place, part]
        switch item.kind {
        case .message:
            append("response.content_part.added", head + [("part", ResponsesOutput.textPart(""))], to: &out)
        case .reasoning:
            append(
                "response.reasoning_summary_part.added", head + [("part", ResponsesOutput.summaryPart(""))], to: &out)
        case .call: break
        }
    }

    private mutating func endPart(to out: inout [UInt8]) {
        guard isPartOpen, let block = answer.blocks.last, let item else { return }
        isPartOpen = false
        let head = [id(of: item), place]
        let text = JSONValue.string(block.content)
        switch item.kind {
        case .message:
            let part = head + [part]
            append("response.output_text.done", part + [("text", text), ("logprobs", [])], to: &out)
            append(
                "response.content_part.done", part + [("part", ResponsesOutput.textPart(block.content))], to: &out)
        case .reasoning where isPartTold:
            let part = head + [part]
            append("response.reasoning_summary_text.done", part + [("text", text)], to: &out)
            append(
                "response.reasoning_summary_part.done",
                part + [("part", ResponsesOutput.summaryPart(block.content))], to: &out)
        case .reasoning: break
        case .call(_, let name):
            let arguments = ResponsesOutput.arguments(block)
            if block.content.isEmpty { writeDelta(arguments, to: &out) }
            append(
                "response.function_call_arguments.done",
                head + [("name", .string(name)), ("arguments", .string(arguments))], to: &out)
        }
        self.item?.blocks.append(block)
    }

    private mutating func endItem(status: String, to out: inout [UInt8]) {
        guard let item else { return }
        let done = output.item(item.kind, item.blocks, id: item.id, status: status)
        append("response.output_item.done", [place, ("item", done)], to: &out)
        items.append(done)
        self.item = nil
    }

    private func id(of item: OpenItem) -> (String, JSONValue) { ("item_id", .string(item.id)) }

    /// Where the open item stands in the output.
    private var place: (String, JSONValue) { ("output_index", .integer(items.count)) }

    /// Where the open part stands in its item.
    private var part: (String, JSONValue) {
        (item?.kind == .message ? "content_index" : "summary_index", .integer(item?.blocks.count ?? 0))
    }

    // MARK: Events

    private mutating func append(_ type: String, _ members: [(String, JSONValue)], to out: inout [UInt8]) {
        ServerSentEvents.append(event: type, to: &out)
        let head: [(String, JSONValue)] = [("type", .string(type)), ("sequence_number", .integer(sequence))]
        ServerSentEvents.append(data: .object(JSONObject(head + members)), to: &out)
        sequence += 1
    }

    /// Deltas are written without a tree, because there is one for each token.
    private mutating func makeDelta(_ kind: ResponsesOutput.Kind) {
        let type =
            switch kind {
            case .message: "response.output_text.delta"
            case .reasoning: "response.reasoning_summary_text.delta"
            case .call: "response.function_call_arguments.delta"
            }
        deltaHead = []
        deltaTail = []
        ServerSentEvents.append(event: type, to: &deltaHead)
        JSONWriter.append(raw: #"data: {"type":"\#(type)","item_id":"#, to: &deltaHead)
        JSONWriter.append(string: item?.id ?? "", to: &deltaHead)
        JSONWriter.append(raw: #","output_index":\#(items.count)"#, to: &deltaHead)
        if kind == .message || kind == .reasoning {
            JSONWriter.append(raw: #","\#(part.0)":\#(item?.blocks.count ?? 0)"#, to: &deltaHead)
        }
        JSONWriter.append(raw: #","delta":"#, to: &deltaHead)
        if kind == .message { JSONWriter.append(raw: #","logprobs":[]"#, to: &deltaTail) }
        JSONWriter.append(raw: #","sequence_number":"#, to: &deltaTail)
    }

    private mutating func appendDelta(_ piece: String, to out: inout [UInt8]) {
        if isPartOpen, !piece.isEmpty { writeDelta(piece, to: &out) }
    }

    private mutating func writeDelta(_ piece: String, to out: inout [UInt8]) {
        out.append(contentsOf: deltaHead)
        JSONWriter.append(string: piece, to: &out)
        out.append(contentsOf: deltaTail)
        JSONWriter.append(raw: "\(sequence)}\n\n", to: &out)
        sequence += 1
    }
}
