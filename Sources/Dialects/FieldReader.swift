/// Reads one JSON object's members and says precisely which one is wrong.
///
/// A member that is `null` counts as missing: SDKs send what was not set that way.
struct FieldReader {
    private let object: JSONObject
    /// Where the object stands in the request: `messages[0]`, or empty for the request itself.
    let path: String

    init(_ value: JSONValue, path: String) throws(APIError) {
        guard let object = value.objectValue else {
            let subject = path.isEmpty ? "The request's body" : "`\(path)`"
            throw .invalid(path.isEmpty ? nil : path, "\(subject) must be an object, not \(value.kindDescription).")
        }
        self.object = object
        self.path = path
    }

    /// A member's place in the request.
    func path(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// The object itself.
    var json: JSONValue { .object(object) }

    /// The names of all members that are not null.
    var names: [String] { object.members.filter { !$0.value.isNull }.map(\.key) }

    /// A member as it is; nil for null.
    func value(_ key: String) -> JSONValue? { object[key].flatMap { $0.isNull ? Optional<JSONValue>.none : $0 } }

    func required(_ key: String) throws(APIError) -> JSONValue {
        guard let value = value(key) else { throw .invalid(path(key), "`\(path(key))` is missing.") }
        return value
    }

    func string(_ key: String) throws(APIError) -> String? {
        try member(key, "a string") { $0.stringValue }
    }

    func bool(_ key: String) throws(APIError) -> Bool? {
        try member(key, "true or false") { $0.boolValue }
    }

    func number(_ key: String, in range: ClosedRange<Double>) throws(APIError) -> Double? {
        let bounds =
            range == -Double.infinity...Double.infinity
            ? ""
            : " from \(Self.spelled(range.lowerBound)) "
                + "to \(Self.spelled(range.upperBound))"
        return try member(key, "a number" + bounds) { $0.doubleValue.flatMap { range.contains($0) ? $0 : nil } }
    }

    /// One of a few words.
    func choice(_ key: String, of words: [String]) throws(APIError) -> String? {
        try member(key, "one of \(words.joined(separator: ", "))") { value in
            value.stringValue.flatMap { words.contains($0) ? $0 : nil }
        }
    }

    func positiveInteger(_ key: String) throws(APIError) -> Int? {
        try member(key, "a whole number of at least 1") { $0.intValue.flatMap { $0 >= 1 ? $0 : nil } }
    }

    func integer(_ key: String) throws(APIError) -> Int? {
        try member(key, "a whole number") { $0.intValue }
    }

    func integer(_ key: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        try member(key, "a whole number from \(range.lowerBound) to \(range.upperBound)") { value in
            value.intValue.flatMap { range.contains($0) ? $0 : nil }
        }
    }

    func array(_ key: String) throws(APIError) -> [JSONValue]? {
        try member(key, "an array") { $0.arrayValue }
    }

    func object(_ key: String) throws(APIError) -> JSONObject? {
        try member(key, "an object") { $0.objectValue }
    }

    func strings(_ key: String) throws(APIError) -> [String]? {
        try member(key, "an array of strings") { value in
            value.arrayValue.flatMap { elements in
                let strings = elements.compactMap(\.stringValue)
                return strings.count == elements.count ? strings : nil
            }
        }
    }

    /// The conversation: `messages`, which must have something in it.
    func messages() throws(APIError) -> [JSONValue] {
        _ = try required("messages")
        guard let messages = try array("messages"), !messages.isEmpty else {
            throw .invalid("messages", "`messages` is empty. Send at least one user message.")
        }
        return messages
    }

    private func member<Value>(
        _ key: String, _ expected: String, _ convert: (JSONValue) -> Value?
    ) throws(APIError) -> Value? {
        guard let value = value(key) else { return nil }
        guard let converted = convert(value) else {
            throw .invalid(path(key), "`\(path(key))` must be \(expected), not \(Self.shown(value)).")
        }
        return converted
    }

    /// Numbers and booleans are shown; text is the caller's own and stays out of messages.
    private static func shown(_ value: JSONValue) -> String {
        switch value {
        case .number(let text): String(text.prefix(30))
        case .bool(let truth): truth ? "true" : "false"
        default: value.kindDescription
        }
    }

    private static func spelled(_ number: Double) -> String {
        Int(exactly: number).map { String($0) } ?? String(number)
    }
}

extension String {
    /// Whether nothing but white space is in it: the Messages API refuses such text.
    var isBlank: Bool { unicodeScalars.allSatisfy { $0.properties.isWhitespace } }
}
