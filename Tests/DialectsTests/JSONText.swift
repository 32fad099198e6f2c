import Dialects
import Testing

/// The JSON of a text that a test wrote.
func json(_ text: String) throws -> JSONValue { try JSONParser.parse(Array(text.utf8)) }

/// A value as it is sent.
func text(_ value: JSONValue) -> String { String(decoding: JSONWriter.bytes(value), as: UTF8.self) }

extension JSONValue: ExpressibleByFloatLiteral {
    /// A number, spelled as Swift spells it.
    public init(floatLiteral value: Double) { self = .number("\(value)") }
}
