// What the author of a prompt can order: `[[name=value]]`, anywhere in the text of the last user message.
//
// Only known names with a well-formed value are directives; everything else in double brackets, such as a wiki link, is
// text. Of two directives that set the same thing the last wins, `tool` adds up. A value ends at the first `]]`; the one of
// `tool` ends with its JSON object, so `]]` may stand inside. docs/offline-upstream.md lists them all.

import Dialects

/// The directives found in a prompt.
struct Directives: Sendable, Equatable {
    /// Where the answer's text comes from.
    enum Text: Sendable, Equatable {
        /// This text: `[[say=TEXT]]`.
        case say(String)
        /// The prompt itself, directives included: `[[echo]]`.
        case echo
        /// So many pieces `tok0 tok1 …`: `[[tokens=N]]`.
        case tokens(Int)
    }

    /// A tool to call: `[[tool=NAME {json}]]`.
    struct Tool: Sendable, Equatable {
        /// The tool's name.
        var name: String
        /// The input's JSON as it was written.
        var inputText: String
        /// The same, parsed.
        var input: JSONValue
    }

    /// How often an error or a fault strikes: `*TIMES` after its value.
    struct Recurrence: Sendable, Equatable {
        /// How many requests of a session are struck before one is answered; nil for all.
        var times: Int?
        /// The directive as it was written, which tells one count from another.
        var spelling: String
    }

    /// An HTTP error: `[[error=STATUS]]` or `[[error=STATUS*TIMES]]`.
    struct Failure: Sendable, Equatable {
        /// The HTTP status.
        var status: Int
        /// How often.
        var recurrence: Recurrence
    }

    /// What goes wrong within the answer; each may have `*TIMES` as well.
    enum FaultKind: String, Sendable {
        /// `[[error_after=N]]`: an SSE `error` event.
        case error = "error_after"
        /// `[[stall=N]]`: silence until the peer leaves.
        case stall
        /// `[[cut=N]]`: a proper end of the HTTP reply, without the terminal events.
        case cut
        /// `[[drop=N]]`: a connection that breaks before the reply's announced length.
        case drop
    }

    /// A fault and its place.
    struct Fault: Sendable, Equatable {
        /// What happens.
        var kind: FaultKind
        /// After how many pieces of text.
        var afterPieces: Int
        /// How often.
        var recurrence: Recurrence
    }

    /// Token counts of the input: `[[usage=IN,CACHE_READ,CACHE_CREATION]]`.
    struct InputUsage: Sendable, Equatable {
        /// Tokens that no cache held.
        var input: Int
        /// Tokens read from the cache.
        var cacheRead = 0
        /// Tokens written to the cache.
        var cacheCreation = 0
    }

    /// The text that was ordered; nil for none.
    var text: Text?
    /// The text of a thinking block: `[[think=TEXT]]`.
    var thinking: String?
    /// The tools to call, in order.
    var tools: [Tool] = []
    /// The stop reason that was ordered: `[[stop_reason=WORD]]`.
    var stopReason: String?
    /// An HTTP error instead of an answer.
    var failure: Failure?
    /// A fault within the answer.
    var fault: Fault?
    /// The token counts that were ordered.
    var usage: InputUsage?
    /// `[[first_ms=N]]`: the wait before the first content.
    var firstDelay = Duration.zero
    /// `[[delay_ms=N]]`: the wait between two pieces of text.
    var pieceDelay = Duration.zero

    /// Reads the directives of a prompt.
    init(prompt: String) {
        let text = Array(prompt.utf8)
        var position = 0
        while position + 1 < text.count {
            guard text[position] == UInt8(ascii: "["), text[position + 1] == UInt8(ascii: "[") else {
                position += 1
                continue
            }
            let nameStart = position + 2
            var nameEnd = nameStart
            while nameEnd < text.count, Self.isNameByte(text[nameEnd]) { nameEnd += 1 }
            let name = String(decoding: text[nameStart..<nameEnd], as: UTF8.self)
            guard let end = Self.end(of: name, in: text, from: nameEnd) else {
                position += 1
                continue
            }
            let hasValue = text[nameEnd] == UInt8(ascii: "=")
            let value = hasValue ? String(decoding: text[nameEnd + 1..<end], as: UTF8.self) : nil
            position = apply(name, value) ? end + 2 : position + 1
        }
    }

    private static let names: Set<String> = [
        "say", "echo", "tokens", "think", "tool", "stop_reason", "error", "error_after", "stall", "cut", "drop",
        "usage",
        "first_ms", "delay_ms",
    ]

    private static func isNameByte(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "_") || (0x61...0x7A).contains(byte) }

    /// Where the closing brackets of a directive stand; nil when this is none.
    private static func end(of name: String, in text: [UInt8], from nameEnd: Int) -> Int? {
        guard names.contains(name), nameEnd < text.count else { return nil }
        var position = nameEnd
        if name == "tool" { position = skipObject(in: text, from: nameEnd) ?? nameEnd }
        while position + 1 < text.count {
            if text[position] == UInt8(ascii: "]"), text[position + 1] == UInt8(ascii: "]") { return position }
            position += 1
        }
        return nil
    }

    /// The place after the JSON object that `tool=NAME ` is followed by; nil if none follows or it does not end.
    private static func skipObject(in text: [UInt8], from start: Int) -> Int? {
        var depth = 0
        var isInString = false
        var position = start
        while position < text.count {
            switch text[position] {
            case UInt8(ascii: "\\") where isInString: position += 1
            case UInt8(ascii: "\"") where depth > 0: isInString.toggle()
            case UInt8(ascii: "{") where !isInString: depth += 1
            case UInt8(ascii: "}") where !isInString:
                depth -= 1
                if depth <= 0 { return position + 1 }
            case UInt8(ascii: "]") where depth == 0: return nil
            default: break
            }
            position += 1
        }
        return nil
    }

    /// Takes one directive in; false when its value makes no sense, so that it is text.
    private mutating func apply(_ name: String, _ value: String?) -> Bool {
        guard let value else {
            if name == "echo" { text = .echo }
            return name == "echo"
        }
        let number = Int(value).flatMap { (0...10_000_000).contains($0) ? $0 : nil }
        switch (name, number) {
        case ("say", _): text = .say(value)
        case ("think", _): thinking = value
        case ("stop_reason", _): stopReason = value
        case ("tokens", let count?): text = .tokens(count)
        case ("first_ms", let count?): firstDelay = .milliseconds(count)
        case ("delay_ms", let count?): pieceDelay = .milliseconds(count)
        case ("tool", _): return addTool(value)
        case ("usage", _): return setUsage(value)
        default: return setFailure(name, value)
        }
        return true
    }

    private mutating func addTool(_ value: String) -> Bool {
        let parts = value.split(separator: " ", maxSplits: 1)
        guard let name = parts.first, !name.contains("{") else { return false }
        let inputText = parts.count > 1 ? String(parts[1]) : "{}"
        guard let input = try? JSONParser.parse(Array(inputText.utf8)), input.objectValue != nil else { return false }
        tools.append(Tool(name: String(name), inputText: inputText, input: input))
        return true
    }

    private mutating func setFailure(_ name: String, _ value: String) -> Bool {
        let parts = value.split(separator: "*", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
        guard (1...2).contains(parts.count), parts.allSatisfy({ $0 >= 0 }) else { return false }
        let recurrence = Recurrence(times: parts.count == 2 ? parts[1] : nil, spelling: "\(name)=\(value)")
        if name == "error", (400...599).contains(parts[0]) {
            failure = Failure(status: parts[0], recurrence: recurrence)
        } else if let kind = FaultKind(rawValue: name) {
            fault = Fault(kind: kind, afterPieces: parts[0], recurrence: recurrence)
        } else {
            return false
        }
        return true
    }

    private mutating func setUsage(_ value: String) -> Bool {
        let parts = value.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
        guard (1...3).contains(parts.count), parts.allSatisfy({ $0 >= 0 }) else { return false }
        usage = InputUsage(
            input: parts[0], cacheRead: parts.count > 1 ? parts[1] : 0, cacheCreation: parts.count > 2 ? parts[2] : 0)
        return true
    }
}
