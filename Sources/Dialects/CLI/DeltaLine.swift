// The line of which an answer has thousands: one piece of a text, of a thought or of what a tool is called with.
//
//   {"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Paris"}},
//    "session_id":"…","parent_tool_use_id":null,"uuid":"…","api_message_id":"…"}
//
// It is read without a tree: that takes a quarter of the time (Benchmarks/HotPathBenchmark). Only this form is known here, as
// the CLI writes it (2.1.251 to 2.1.332); a line that differs in anything that could matter is left to the parser, so that no
// form of a line has a meaning of its own here.

import func Glibc.memcmp

/// A piece of the model's message.
struct DeltaLine: Equatable {
    enum Kind: Equatable { case text, thinking, toolInput }

    let kind: Kind
    let piece: String

    /// The piece in a line of the CLI's output; nil for any other line, and for one that the parser must look at.
    init?(_ bytes: [UInt8], in range: Range<Int>) {
        var cursor = Cursor(bytes: bytes, position: range.lowerBound, end: range.upperBound)
        guard cursor.skip(#"{"type":"stream_event","event":{"type":"content_block_delta","index":"#),
            cursor.skipNumber(),
            cursor.skip(#","delta":{"type":""#)
        else { return nil }
        if cursor.skip(#"text_delta","text":""#) {
            kind = .text
        } else if cursor.skip(#"input_json_delta","partial_json":""#) {
            kind = .toolInput
        } else if cursor.skip(#"thinking_delta","thinking":""#) {
            kind = .thinking
        } else {
            return nil
        }
        guard let piece = cursor.text(), cursor.skip("}}"), cursor.skipOwnMembers() else { return nil }
        self.piece = piece
    }
}

private struct Cursor {
    let bytes: [UInt8]
    var position: Int
    let end: Int

    mutating func skip(_ literal: StaticString) -> Bool {
        let count = literal.utf8CodeUnitCount
        guard end - position >= count else { return false }
        let isEqual = unsafe bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return false }
            return unsafe memcmp(base + position, literal.utf8Start, count) == 0
        }
        if isEqual { position += count }
        return isEqual
    }

    /// A whole number without a sign.
    mutating func skipNumber() -> Bool {
        let first = position
        while position < end, (0x30...0x39).contains(bytes[position]) { position += 1 }
        return position == first + 1 || position > first && bytes[first] != UInt8(ascii: "0")
    }

    /// The rest of a string, and its closing quote.
    mutating func text() -> String? {
        let first = position
        while position < end {
            switch bytes[position] {
            case UInt8(ascii: "\""):
                position += 1
                return JSONParser.text(bytes, in: first..<(position - 1))
            case UInt8(ascii: "\\"):
                guard let (text, next) = try? JSONParser.restOfString(bytes, from: first, at: position, end: end)
                else { return nil }
                position = next
                return text
            case 0..<0x20: return nil
            default: position += 1
            }
        }
        return nil
    }

    /// The rest of a string that holds nothing but plain ASCII, and its closing quote.
    private mutating func skipPlainText() -> Bool {
        while position < end {
            let byte = bytes[position]
            position += 1
            if byte == UInt8(ascii: "\"") { return true }
            if byte < 0x20 || byte > 0x7E || byte == UInt8(ascii: "\\") { return false }
        }
        return false
    }

    /// The members behind the event, to the line's end: none may say that it is not the answer's.
    mutating func skipOwnMembers() -> Bool {
        while position < end {
            if bytes[position] == UInt8(ascii: "}") { return position + 1 == end }
            let isParent = skip(#","parent_tool_use_id":"#)
            if !isParent {
                // The last of two members with one name counts.
                if skip(#","type":"#) || skip(#","event":"#) { return false }
                guard skip(#",""#), skipPlainText(), skip(":") else { return false }
            }
            if skip("null") { continue }
            guard !isParent, skip("\"") ? skipPlainText() : skipNumber() else { return false }
        }
        return false
    }
}
