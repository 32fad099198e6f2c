// Finding directives in a text, in one pass over its bytes.
//
// Only known names with a well-formed value are directives; everything else in double brackets, such as a wiki link, is
// text. Of two directives that set the same thing the last wins, `tool` and `then_tool` add up. A value ends at the first
// `]]`; one with a JSON object ends after the object, so `]]` may stand inside.

import Dialects

extension Directives {
    /// Reads the directives of a prompt.
    init(prompt: String) {
        self.init()
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
        "say", "echo", "tokens", "cite", "think", "redacted", "tool", "json", "json_bad", "then", "then_tool",
        "stop_reason", "ignore_stop", "error", "error_after", "stall", "cut", "drop", "usage", "rate_limit", "first_ms",
        "delay_ms",
    ]

    /// Directives whose value is or ends with a JSON object.
    private static let objectNames: Set<String> = ["tool", "then_tool", "json"]

    private static func isNameByte(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "_") || (0x61...0x7A).contains(byte) }

    /// Where the closing brackets of a directive stand; nil when this is none.
    private static func end(of name: String, in text: [UInt8], from nameEnd: Int) -> Int? {
        guard names.contains(name), nameEnd < text.count else { return nil }
        var position = nameEnd
        if objectNames.contains(name) { position = skipObject(in: text, from: nameEnd) ?? nameEnd }
        while position + 1 < text.count {
            if text[position] == UInt8(ascii: "]"), text[position + 1] == UInt8(ascii: "]") { return position }
            position += 1
        }
        return nil
    }

    /// The place after the JSON object that a name is followed by; nil if none follows or it does not end.
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
        guard let value else { return applyFlag(name) }
        let number = Int(value).flatMap { (0...10_000_000).contains($0) ? $0 : nil }
        switch (name, number) {
        case ("say", _): text = .say(value)
        case ("think", _): thinking = value
        case ("cite", _): citation = value
        case ("then", _): laterText = value
        case ("json_bad", let count?): badOutputs = count
        case ("stop_reason", _): stopReason = value
        case ("tokens", let count?): text = .tokens(count)
        case ("first_ms", let count?): firstDelay = .milliseconds(count)
        case ("delay_ms", let count?): pieceDelay = .milliseconds(count)
        case ("tool", _): return Self.addTool(value, to: &tools)
        case ("then_tool", _): return Self.addTool(value, to: &laterTools)
        case ("json", _): return setOutput(value)
        case ("rate_limit", _): return setRateLimit(value)
        case ("usage", _): return setUsage(value)
        default: return setFailure(name, value)
        }
        return true
    }

    /// Takes in a directive that has no value.
    private mutating func applyFlag(_ name: String) -> Bool {
        switch name {
        case "echo": text = .echo
        case "redacted": redacts = true
        case "ignore_stop": ignoresStop = true
        default: return false
        }
        return true
    }

    private static func addTool(_ value: String, to tools: inout [Tool]) -> Bool {
        let parts = value.split(separator: " ", maxSplits: 1)
        guard let name = parts.first, !name.contains("{") else { return false }
        let inputText = parts.count > 1 ? String(parts[1]) : "{}"
        guard let input = try? JSONParser.parse(Array(inputText.utf8)), input.objectValue != nil else { return false }
        tools.append(Tool(name: String(name), inputText: inputText, input: input))
        return true
    }

    private mutating func setOutput(_ value: String) -> Bool {
        guard let input = try? JSONParser.parse(Array(value.utf8)), input.objectValue != nil else { return false }
        output = input
        return true
    }

    private mutating func setRateLimit(_ value: String) -> Bool {
        guard let utilization = Double(value), (0...10).contains(utilization) else { return false }
        rateLimit = RateLimit(utilization: utilization)
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
