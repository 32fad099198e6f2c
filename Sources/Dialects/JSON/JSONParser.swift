// A JSON parser over bytes, after RFC 8259.
//
// It works on a range of an array so that a line of the CLI's output is parsed where it lies in the read buffer, without a
// copy. Depth is bounded, because the recursion runs on a request thread's stack and the text comes from the network. Text
// that is no valid UTF-8 is refused; an escaped lone surrogate, which JavaScript may write, becomes U+FFFD.

/// Why a text is no JSON, and where.
public struct JSONError: Error, Sendable, Equatable {
    /// What is wrong, in words that end a sentence.
    public var reason: String
    /// The byte at which it was noticed, counted from the start of the text.
    public var offset: Int
}

/// Parses one JSON value from bytes.
public struct JSONParser {
    /// Deeper nesting than any request has, and far from the end of a 512 KiB stack.
    public static let maximumDepth = 256

    private let bytes: [UInt8]
    private let start: Int
    private let end: Int
    private var position: Int
    private var depth = 0

    /// Parses the whole text.
    ///
    /// - Parameter range: The part of `bytes` that is the text; nil for all.
    /// - Throws: ``JSONError`` with the offset of the fault.
    public static func parse(_ bytes: [UInt8], in range: Range<Int>? = nil) throws(JSONError) -> JSONValue {
        var parser = JSONParser(bytes: bytes, range: range ?? 0..<bytes.count)
        parser.skipSpace()
        let value = try parser.value()
        parser.skipSpace()
        if parser.position < parser.end { throw parser.error("there is text after the end of the document") }
        return value
    }

    /// Reads on in a string in which there is an escape.
    ///
    /// - Parameters:
    ///   - first: Where its text begins.
    ///   - position: Where the first escape is.
    ///   - end: Where the document ends.
    /// - Returns: The text, and the place behind the closing quote.
    static func restOfString(
        _ bytes: [UInt8], from first: Int, at position: Int, end: Int
    ) throws(JSONError) -> (text: String, next: Int) {
        var parser = JSONParser(bytes: bytes, range: first..<end)
        parser.position = position
        return (try parser.stringWithEscapes(from: first), parser.position)
    }

    private init(bytes: [UInt8], range: Range<Int>) {
        self.bytes = bytes
        start = range.lowerBound
        position = range.lowerBound
        end = range.upperBound
    }

    private func error(_ reason: String) -> JSONError { JSONError(reason: reason, offset: position - start) }

    private mutating func skipSpace() {
        while position < end {
            switch bytes[position] {
            case 0x20, 0x0A, 0x0D, 0x09: position += 1
            default: return
            }
        }
    }

    private mutating func value() throws(JSONError) -> JSONValue {
        guard position < end else { throw error("the text ends where a value is expected") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return .number(try number())
        }
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        for offset in 0..<word.utf8CodeUnitCount {
            guard position + offset < end, unsafe bytes[position + offset] == word.utf8Start[offset] else {
                throw error("a value is expected")
            }
        }
        position += word.utf8CodeUnitCount
        return value
    }

    private mutating func enter() throws(JSONError) {
        depth += 1
        if depth > Self.maximumDepth { throw error("it is nested more than \(Self.maximumDepth) levels deep") }
        position += 1
        skipSpace()
    }

    private mutating func object() throws(JSONError) -> JSONValue {
        try enter()
        defer { depth -= 1 }
        var members: [JSONObject.Member] = []
        if position < end, bytes[position] == UInt8(ascii: "}") {
            position += 1
            return .object(JSONObject())
        }
        while true {
            guard position < end, bytes[position] == UInt8(ascii: "\"") else {
                throw error("a member's name is expected")
            }
            let key = try string()
            skipSpace()
            guard position < end, bytes[position] == UInt8(ascii: ":") else { throw error("a colon is expected") }
            position += 1
            skipSpace()
            members.append(.init(key: key, value: try value()))
            if try endOfElement(closing: UInt8(ascii: "}")) { return .object(JSONObject(members)) }
        }
    }

    private mutating func array() throws(JSONError) -> JSONValue {
        try enter()
        defer { depth -= 1 }
        var elements: [JSONValue] = []
        if position < end, bytes[position] == UInt8(ascii: "]") {
            position += 1
            return .array([])
        }
        while true {
            elements.append(try value())
            if try endOfElement(closing: UInt8(ascii: "]")) { return .array(elements) }
        }
    }

    /// After an element: true at the closing bracket, false after a comma.
    private mutating func endOfElement(closing: UInt8) throws(JSONError) -> Bool {
        skipSpace()
        guard position < end else { throw error("the text ends inside an array or object") }
        if bytes[position] == closing {
            position += 1
            return true
        }
        guard bytes[position] == UInt8(ascii: ",") else { throw error("a comma or a closing bracket is expected") }
        position += 1
        skipSpace()
        return false
    }

    private mutating func number() throws(JSONError) -> String {
        let first = position
        func digit(_ index: Int) -> Bool { index < end && bytes[index] >= 0x30 && bytes[index] <= 0x39 }
        var index = position
        if index < end, bytes[index] == UInt8(ascii: "-") { index += 1 }
        guard digit(index) else { throw error("a value is expected") }
        if bytes[index] == UInt8(ascii: "0") { index += 1 } else { while digit(index) { index += 1 } }
        if index < end, bytes[index] == UInt8(ascii: ".") {
            index += 1
            guard digit(index) else { throw error("a number has no digit after its point") }
            while digit(index) { index += 1 }
        }
        if index < end, bytes[index] | 0x20 == UInt8(ascii: "e") {
            index += 1
            if index < end, bytes[index] == UInt8(ascii: "+") || bytes[index] == UInt8(ascii: "-") { index += 1 }
            guard digit(index) else { throw error("a number has no digit in its exponent") }
            while digit(index) { index += 1 }
        }
        position = index
        return String(decoding: bytes[first..<index], as: UTF8.self)
    }

    private mutating func string() throws(JSONError) -> String {
        position += 1
        let first = position
        while position < end {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\"") {
                let text = try utf8(first..<position)
                position += 1
                return text
            }
            if byte == UInt8(ascii: "\\") { return try stringWithEscapes(from: first) }
            if byte < 0x20 { throw error("a string has a control character that is not escaped") }
            position += 1
        }
        throw error("a string has no end")
    }

    private func utf8(_ range: Range<Int>) throws(JSONError) -> String {
        guard let text = Self.text(bytes, in: range) else {
            throw JSONError(reason: "a string is not valid UTF-8", offset: range.lowerBound - start)
        }
        return text
    }

    /// A text of bytes; nil where they are no valid UTF-8.
    ///
    /// Not by `String(validating:as:)`, which takes three times as long for a word: it is generic, and looks its types up.
    static func text(_ bytes: [UInt8], in range: Range<Int>) -> String? {
        do {
            return String(copying: try UTF8Span(validating: bytes.span.extracting(range)))
        } catch {
            return nil
        }
    }

    /// The slow half of ``string()``: copies what came before the first escape and decodes the rest.
    private mutating func stringWithEscapes(from first: Int) throws(JSONError) -> String {
        var text = Array(bytes[first..<position])
        while position < end {
            let byte = bytes[position]
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = Self.text(text, in: 0..<text.count) else {
                    throw JSONError(reason: "a string is not valid UTF-8", offset: first - start)
                }
                return string
            case UInt8(ascii: "\\"):
                try escape(into: &text)
            case 0..<0x20:
                throw error("a string has a control character that is not escaped")
            default:
                text.append(byte)
            }
        }
        throw error("a string has no end")
    }

    private mutating func escape(into text: inout [UInt8]) throws(JSONError) {
        guard position < end else { throw error("a string has no end") }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var scalar = try hexQuad()
            if scalar & 0xFC00 == 0xD800, position + 1 < end, bytes[position] == UInt8(ascii: "\\"),
                bytes[position + 1] == UInt8(ascii: "u")
            {
                let mark = position
                position += 2
                let low = try hexQuad()
                if low & 0xFC00 == 0xDC00 {
                    scalar = 0x10000 + ((scalar & 0x3FF) << 10) + (low & 0x3FF)
                } else {
                    position = mark
                }
            }
            text.append(contentsOf: String(Unicode.Scalar(scalar) ?? "\u{FFFD}").utf8)
        default:
            throw error("a string has an unknown escape")
        }
    }

    private mutating func hexQuad() throws(JSONError) -> UInt32 {
        guard position + 4 <= end else { throw error("a \\u escape has fewer than four digits") }
        var value: UInt32 = 0
        for _ in 0..<4 {
            let byte = bytes[position]
            switch byte {
            case 0x30...0x39: value = value << 4 + UInt32(byte - 0x30)
            case 0x41...0x46, 0x61...0x66: value = value << 4 + UInt32((byte | 0x20) - 0x61 + 10)
            default: throw error("a \\u escape has a character that is no hexadecimal digit")
            }
            position += 1
        }
        return value
    }
}
