/// A JSON document as a tree that keeps what callers wrote: the order of members and the spelling of numbers.
///
/// Schemas and tool inputs pass through the service; a re-ordered or rounded one is not what the caller sent.
public enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    /// A number in its own spelling, such as `1e3` or `0.10`.
    case number(String)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// A whole number.
    public static func integer(_ value: Int) -> JSONValue { .number(String(value)) }

    /// The member called `key`, or nil for a missing one and for a value that is no object.
    public subscript(key: String) -> JSONValue? {
        if case .object(let object) = self { object[key] } else { nil }
    }

    /// The text of a string.
    public var stringValue: String? { if case .string(let value) = self { value } else { nil } }

    /// The truth of a boolean.
    public var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }

    /// A whole number's value; also of `3.0` and `3e2`, which JSON does not tell from `3` and `300`.
    public var intValue: Int? {
        guard case .number(let text) = self else { return nil }
        // One that is too large for an Int must not be rounded into it.
        if text.utf8.allSatisfy({ $0 == UInt8(ascii: "-") || (0x30...0x39).contains($0) }) { return Int(text) }
        return Double(text).flatMap { Int(exactly: $0) }
    }

    /// A number's value.
    public var doubleValue: Double? { if case .number(let text) = self { Double(text) } else { nil } }

    /// The elements of an array.
    public var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }

    /// The members of an object.
    public var objectValue: JSONObject? { if case .object(let value) = self { value } else { nil } }

    /// Whether this is JSON's `null`.
    public var isNull: Bool { self == .null }

    /// What kind of value this is, in words for an error message.
    public var kindDescription: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    /// `"text"`.
    public init(stringLiteral value: String) { self = .string(value) }
    /// `true`.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// `1`.
    public init(integerLiteral value: Int) { self = .integer(value) }
    /// `[1, 2]`.
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    /// `["key": "value"]`, order kept.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(JSONObject(elements))
    }
    /// `nil` is JSON's null.
    public init(nilLiteral: ()) { self = .null }
}

/// An object's members in the order they were written.
///
/// Look-up is linear: the objects here have a handful of members, and the last of two members with one name wins, as in
/// JavaScript.
public struct JSONObject: Sendable, Equatable {
    /// A name and its value.
    public struct Member: Sendable, Equatable {
        /// The member's name.
        public var key: String
        /// The member's value.
        public var value: JSONValue

        /// A member.
        public init(key: String, value: JSONValue) {
            self.key = key
            self.value = value
        }
    }

    /// The members in order.
    public private(set) var members: [Member]

    /// An object of these members.
    public init(_ members: [Member] = []) { self.members = members }

    /// An object of these names and values.
    public init(_ members: [(String, JSONValue)]) { self.init(members.map { Member(key: $0.0, value: $0.1) }) }

    /// The value called `key`; setting one replaces it in place or appends it, setting nil removes it.
    public subscript(key: String) -> JSONValue? {
        get { members.last { $0.key == key }?.value }
        set {
            if let newValue {
                if let index = members.lastIndex(where: { $0.key == key }) {
                    members[index].value = newValue
                } else {
                    members.append(Member(key: key, value: newValue))
                }
            } else {
                members.removeAll { $0.key == key }
            }
        }
    }
}
