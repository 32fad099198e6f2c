// Reads the Messages API's own events, as the CLI passes them on, into the events of a reply.
//
// A message's start is handed on with its first content, so that a stream that breaks before it can still be tried again.
// A structured answer is held back until the CLI has found it good: until then the model may be told to try again. What the
// CLI does after `max_tokens`, a refusal or an empty answer (it asks the model to go on, seen with CLI 2.1.330) is not
// wanted: the caller wants what the model said, and pays for no more.
//
// Every message that is handed on is well formed, whatever the CLI writes: blocks follow each other, each has an end, and a
// piece goes into a block of its own kind only; no two calls have one id. What belongs to no message is left out.

/// One turn's model messages.
struct MessageReader: Sendable {
    /// Where the turn stands after an event.
    enum Verdict: Sendable, Equatable {
        /// It goes on.
        case goesOn
        /// The answer is whole; the CLI's report of the turn follows.
        case answered
        /// The answer is whole, and the CLI must do no more.
        case cut
        /// The CLI began the answer anew after a part of it had been handed on.
        case broken
    }

    private enum OpenBlock {
        case none, text, thinking, redacted, tool, structured, unknown

        /// Whether the caller is told of it.
        var isShown: Bool {
            switch self {
            case .text, .thinking, .redacted, .tool: true
            case .none, .structured, .unknown: false
            }
        }
    }

    private let isChat: Bool
    /// Whether a chat has tools of the CLI's own: then several messages of the model's are one to the caller.
    private let isHosting: Bool
    /// The caller's tools by the CLI's names.
    private let clientTools: Set<String>
    private let isStreaming: Bool
    private let isStructured: Bool
    private var scanner: StopScanner

    /// The message's id.
    private(set) var messageID = ""
    /// The model that answers.
    var model = ""
    /// The chat's text that has been handed on.
    private(set) var text = ""
    /// Whether a message has begun and not ended.
    private var isMessageOpen = false
    private var usage = TokenUsage()
    private var stopReason: StopReason?
    private var isStartPending = false
    private var open = OpenBlock.none
    private var hasText = false
    private var hasContent = false
    /// The ids of the calls of the caller's tools; results are matched by them.
    private var calls: Set<String> = []
    /// Whether the caller has been told of a message.
    private var hasStarted = false
    /// Whether text of an earlier message has been handed on, and none of this one.
    private var needsSeparator = false
    /// Tokens of the messages that have ended.
    private(set) var endedUsage = TokenUsage()
    private var structuredCalls: Set<String> = []
    /// The events of a structured message, for when it turns out to be none.
    private var held: [RunEvent] = []
    private var structured = ""
    private var structuredUsage = TokenUsage()

    init(_ request: RunRequest) {
        isChat = request.profile == .chat
        isHosting = isChat && !request.hostTools.isEmpty
        clientTools = Set(request.offeredTools.map { ToolNames.toCLI($0.name) })
        isStreaming = request.isStreaming || request.isBackground
        isStructured = request.outputSchema != nil
        scanner = StopScanner(isStructured ? [] : request.stopSequences)
    }

    /// Takes the `event` of a `stream_event` line.
    mutating func receive(_ event: JSONValue, into events: inout [RunEvent]) -> Verdict {
        let type = event["type"]?.stringValue
        guard isMessageOpen || type == "message_start" else { return .goesOn }
        switch type {
        case "content_block_delta": return delta(event["delta"], into: &events)
        case "content_block_start": blockStart(event["content_block"], into: &events)
        case "content_block_stop": blockStop(into: &events)
        case "message_start":
            // What a client has been sent can't be taken back.
            if hasContent, isStreaming || isHosting { return .broken }
            blockStop(into: &events)
            begin(event["message"])
        case "message_delta":
            usage = TokenUsage(event["usage"], previous: usage)
            if let reason = event["delta"]?["stop_reason"]?.stringValue, !reason.isEmpty {
                stopReason = StopReason(reason, sequence: event["delta"]?["stop_sequence"]?.stringValue)
            }
        case "message_stop": return messageStop(into: &events)
        default: break
        }
        return .goesOn
    }

    private mutating func begin(_ message: JSONValue?) {
        messageID = message?["id"]?.stringValue ?? ""
        model = message?["model"]?.stringValue ?? ""
        usage = TokenUsage(message?["usage"])
        isMessageOpen = true
        isStartPending = !isHosting || !hasStarted
        stopReason = nil
        open = .none
        text = ""
        hasText = false
        hasContent = false
        calls = []
        held = []
        structured = ""
        _ = scanner.flush()
    }

    private mutating func blockStart(_ block: JSONValue?, into events: inout [RunEvent]) {
        blockStop(into: &events)
        switch block?["type"]?.stringValue {
        case "text":
            open = .text
            emit(.blockStarted(.text), into: &events)
        case "thinking":
            open = .thinking
            emit(.blockStarted(.thinking), into: &events)
        case "redacted_thinking":
            open = .redacted
            emit(.blockStarted(.redactedThinking(data: block?["data"]?.stringValue ?? "")), into: &events)
        case "tool_use":
            let name = block?["name"]?.stringValue ?? ""
            let id = block?["id"]?.stringValue ?? ""
            if isStructured, name == ToolNames.structuredOutput {
                open = .structured
                structured = ""
                structuredCalls.insert(id)
            } else if isHosting, !clientTools.contains(name) {
                // The CLI's own affair.
                open = .unknown
            } else if !id.isEmpty, calls.insert(id).inserted {
                open = .tool
                emit(.blockStarted(.toolUse(id: id, name: ToolNames.fromCLI(name))), into: &events)
            } else {
                open = .unknown
            }
        default: open = .unknown
        }
    }

    /// Takes a piece of the message that was read without the rest of its line.
    mutating func receive(_ line: DeltaLine, into events: inout [RunEvent]) -> Verdict {
        guard isMessageOpen else { return .goesOn }
        return delta(line.kind, line.piece, into: &events)
    }

    private mutating func delta(
        _ kind: DeltaLine.Kind, _ piece: String?, into events: inout [RunEvent]
    ) -> Verdict {
        guard let piece else { return .goesOn }
        switch kind {
        case .text:
            guard open == .text, !piece.isEmpty else { break }
            hasText = true
            switch scanner.scan(piece) {
            case .text(let piece): append(piece, into: &events)
            case .stopped(let rest, let word):
                append(rest, into: &events)
                stop(at: word, into: &events)
                return .cut
            }
        case .thinking:
            if open == .thinking, !piece.isEmpty { emit(.thinking(piece), into: &events) }
        case .toolInput:
            if open == .structured {
                structured += piece
            } else if open == .tool {
                emit(.toolInput(piece), into: &events)
            }
        }
        return .goesOn
    }

    private mutating func delta(_ delta: JSONValue?, into events: inout [RunEvent]) -> Verdict {
        switch delta?["type"]?.stringValue {
        case "text_delta": return self.delta(.text, delta?["text"]?.stringValue, into: &events)
        case "thinking_delta": return self.delta(.thinking, delta?["thinking"]?.stringValue, into: &events)
        case "input_json_delta": return self.delta(.toolInput, delta?["partial_json"]?.stringValue, into: &events)
        case "signature_delta" where open == .thinking:
            if let piece = delta?["signature"]?.stringValue { emit(.signature(piece), into: &events) }
        case "citations_delta" where open == .text:
            if let citation = delta?["citation"] { emit(.citation(citation), into: &events) }
        default: break
        }
        return .goesOn
    }

    private mutating func append(_ piece: String, into events: inout [RunEvent]) {
        guard !piece.isEmpty else { return }
        if isChat { text += piece }
        emit(.text(needsSeparator ? "\n\n" + piece : piece), into: &events)
        needsSeparator = false
    }

    private mutating func blockStop(into events: inout [RunEvent]) {
        if open == .text { append(scanner.flush(), into: &events) }
        if open.isShown { emit(.blockEnded, into: &events) }
        open = .none
    }

    /// One of the caller's stop sequences is next: the answer is whole without what follows.
    ///
    /// The API has not counted the output yet; four bytes a token come near.
    private mutating func stop(at word: String, into events: inout [RunEvent]) {
        blockStop(into: &events)
        usage.output = max(usage.output, (text.utf8.count + 3) / 4)
        end(.stopSequence(word), into: &events)
    }

    private mutating func messageStop(into events: inout [RunEvent]) -> Verdict {
        isMessageOpen = false
        // The CLI closes the message of a stream that broke off by itself, without a reason to stop.
        guard let reason = stopReason else { return .goesOn }
        blockStop(into: &events)
        guard isChat else {
            flushStart(into: &events)
            events.append(.messageEnded(stopReason: reason, usage: usage))
            endedUsage = endedUsage + usage
            hasContent = false
            return .goesOn
        }
        if isHosting, !isStructured, reason == .toolUse, calls.isEmpty {
            // The CLI runs its tools, and the model's next message is the rest of this one.
            endedUsage = endedUsage + usage
            needsSeparator = needsSeparator || hasText
            hasContent = false
            text = ""
            return .goesOn
        }
        if isStructured {
            structuredUsage = structuredUsage + usage
            if calls.isEmpty, reason == .toolUse || reason == .endTurn { return .goesOn }
            flushStart(into: &events)
            // Cut short: what there is of the structure is what the vendors give as well.
            events += !calls.isEmpty || structured.isEmpty ? held : Self.block(structured)
            usage = structuredUsage
        }
        end(reason, into: &events)
        if !isStructured, hasText {
            if case .stopSequence = reason { return .answered }
            if reason == .endTurn { return .answered }
        }
        return .cut
    }

    private mutating func end(_ reason: StopReason, into events: inout [RunEvent]) {
        flushStart(into: &events)
        events += [.messageEnded(stopReason: reason, usage: endedUsage + usage), .answered]
    }

    private mutating func emit(_ event: RunEvent, into events: inout [RunEvent]) {
        if isStructured, isChat {
            held.append(event)
        } else {
            flushStart(into: &events)
            hasContent = true
            events.append(event)
        }
    }

    private mutating func flushStart(into events: inout [RunEvent]) {
        guard isStartPending else { return }
        isStartPending = false
        hasStarted = true
        events.append(.messageStarted(id: messageID, model: model, usage: usage))
    }

    /// Whether a call was one of the CLI's own tool for structured output, which is no tool to the caller.
    func isStructuredCall(_ id: String?) -> Bool { id.map { structuredCalls.contains($0) } ?? false }

    // MARK: At the turn's end

    /// The structured answer that the CLI found good.
    ///
    /// - Parameters:
    ///   - output: The CLI's own copy of it, for when the model's words were not seen.
    ///   - id: The message's id for when no message was seen.
    mutating func structuredAnswer(_ output: JSONValue, id: String, usage total: TokenUsage) -> [RunEvent] {
        var events: [RunEvent] = []
        if messageID.isEmpty {
            messageID = id
            isStartPending = true
        }
        flushStart(into: &events)
        let written = (try? JSONParser.parse(Array(structured.utf8))) == nil ? nil : structured
        let text = written ?? String(decoding: JSONWriter.bytes(output), as: UTF8.self)
        return events + Self.block(text) + [.messageEnded(stopReason: .endTurn, usage: total), .answered]
    }

    /// The rest of an answer whose end the CLI had without a stream.
    ///
    /// - Returns: Nil when it is not what has been handed on.
    mutating func rest(of result: String, id: String, stopReason: StopReason?, usage total: TokenUsage) -> [RunEvent]? {
        var events: [RunEvent] = []
        guard endedUsage == TokenUsage() else { return nil }
        if !isStreaming { text = "" }
        // Bytes, not characters: a piece may have ended inside one.
        guard result.utf8.starts(with: text.utf8) else { return nil }
        if messageID.isEmpty || !isStreaming {
            messageID = id
            usage = total
            isStartPending = true
            open = .none
        }
        flushStart(into: &events)
        if open != .text {
            blockStop(into: &events)
            events.append(.blockStarted(.text))
        }
        let rest = String(decoding: result.utf8.dropFirst(text.utf8.count), as: UTF8.self)
        if !rest.isEmpty { events.append(.text(rest)) }
        return events + [.blockEnded, .messageEnded(stopReason: stopReason ?? .endTurn, usage: total), .answered]
    }

    private static func block(_ text: String) -> [RunEvent] { [.blockStarted(.text), .text(text), .blockEnded] }
}
