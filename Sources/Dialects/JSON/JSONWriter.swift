/// Writes JSON without spaces into a byte array, the form of everything this service sends.
public enum JSONWriter {
    /// The value as UTF-8.
    public static func bytes(_ value: JSONValue) -> [UInt8] {
        var out: [UInt8] = []
        append(value, to: &out)
        return out
    }

    /// Appends the value.
    public static func append(_ value: JSONValue, to out: inout [UInt8]) {
        switch value {
        case .null: append(raw: "null", to: &out)
        case .bool(let truth): append(raw: truth ? "true" : "false", to: &out)
        case .number(let text): append(raw: text, to: &out)
        case .string(let text): append(string: text, to: &out)
        case .array(let elements):
            out.append(UInt8(ascii: "["))
            for (index, element) in elements.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                append(element, to: &out)
            }
            out.append(UInt8(ascii: "]"))
        case .object(let object):
            out.append(UInt8(ascii: "{"))
            for (index, member) in object.members.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                append(string: member.key, to: &out)
                out.append(UInt8(ascii: ":"))
                append(member.value, to: &out)
            }
            out.append(UInt8(ascii: "}"))
        }
    }

    /// Appends text as it is: punctuation and words that need no escape.
    public static func append(raw text: String, to out: inout [UInt8]) { out.append(contentsOf: text.utf8) }

    /// Appends a string with its quotes.
    ///
    /// U+2028 and U+2029 go out as they are: JSON allows them, and SSE splits at CR and LF only.
    public static func append(string text: String, to out: inout [UInt8]) {
        out.append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { bytes in
            // Runs that need no escape are copied at once: nearly every text is a single one.
            var start = 0
            for index in 0..<bytes.count {
                let byte = unsafe bytes[index]
                guard needsEscape(byte) else { continue }
                unsafe out.append(contentsOf: bytes[start..<index])
                append(escaped: byte, to: &out)
                start = index + 1
            }
            unsafe out.append(contentsOf: bytes[start...])
        }
        out.append(UInt8(ascii: "\""))
    }

    private static func needsEscape(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte == 0x7F
    }

    private static func append(escaped byte: UInt8, to out: inout [UInt8]) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            out.append(UInt8(ascii: "\\"))
            out.append(byte)
        case 0x0A: append(raw: "\\n", to: &out)
        case 0x0D: append(raw: "\\r", to: &out)
        case 0x09: append(raw: "\\t", to: &out)
        default:
            append(raw: "\\u00", to: &out)
            out.append(hexDigit(byte >> 4))
            out.append(hexDigit(byte & 15))
        }
    }

    private static func hexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x61 + value - 10 }
}
