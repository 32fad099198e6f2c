// A value for a JSON schema, made without looking at the prompt.
//
// Knows what schemas of tools and of structured outputs use: type, properties, required, items, enum, const, $ref within
// the document, allOf, the first of anyOf and oneOf, bounds, lengths and the usual formats. Patterns, conditions and
// uniqueItems are beyond it.

import Dialects

/// Makes values that fit a schema, and some that don't.
struct SchemaExample {
    /// Deeper than this a schema that contains itself is given null.
    private static let maximumDepth = 16
    /// More elements than this are not made, whatever a schema asks.
    private static let maximumCount = 1000

    private let root: JSONValue

    /// The smallest input that fits a tool's schema.
    static func value(for schema: JSONValue) -> JSONValue { Self(root: schema).value(schema, depth: 0) }

    /// The smallest input of a tool, which is an object also where the vendor's own tools have no schema.
    static func input(for schema: JSONValue) -> JSONValue {
        let input = value(for: schema)
        return input.objectValue == nil ? [:] : input
    }

    /// An input that fits no schema with required or typed properties: one is missing, the others have wrong types.
    static func misfit(for schema: JSONValue) -> JSONValue {
        let example = Self(root: schema)
        let resolved = example.resolve(schema, depth: 0)
        let missing = resolved["required"]?.arrayValue?.first?.stringValue
        var input = JSONObject([.init(key: "__invalid__", value: 1)])
        for member in resolved["properties"]?.objectValue?.members ?? [] where member.key != missing {
            let fitting = example.value(member.value, depth: 1)
            input[member.key] = fitting.objectValue == nil ? ["__invalid__": 1] : 1
        }
        return .object(input)
    }

    private func value(_ schema: JSONValue, depth: Int) -> JSONValue {
        guard depth < Self.maximumDepth else { return nil }
        let schema = resolve(schema, depth: depth)
        if let value = schema["const"] ?? schema["enum"]?.arrayValue?.first { return value }
        switch type(of: schema) {
        case "object": return object(schema, depth: depth)
        case "array": return array(schema, depth: depth)
        case "integer": return Self.number(schema, isInteger: true)
        case "number": return Self.number(schema, isInteger: false)
        case "boolean": return true
        case "null": return nil
        default: return .string(Self.text(schema))
        }
    }

    private func type(of schema: JSONValue) -> String {
        if let type = schema["type"]?.stringValue ?? schema["type"]?.arrayValue?.first?.stringValue { return type }
        if schema["properties"] != nil || schema["required"] != nil { return "object" }
        return schema["items"] == nil ? "string" : "array"
    }

    private func object(_ schema: JSONValue, depth: Int) -> JSONValue {
        let names = schema["required"]?.arrayValue?.compactMap(\.stringValue) ?? []
        return .object(
            JSONObject(
                names.map { name in
                    .init(key: name, value: value(schema["properties"]?[name] ?? true, depth: depth + 1))
                }))
    }

    private func array(_ schema: JSONValue, depth: Int) -> JSONValue {
        let count = min(schema["minItems"]?.intValue ?? 0, Self.maximumCount)
        let first = schema["prefixItems"]?.arrayValue ?? schema["items"]?.arrayValue ?? []
        let rest = schema["items"]?.objectValue == nil ? schema["additionalItems"] : schema["items"]
        return .array(
            (0..<max(0, count)).map { index in
                value(index < first.count ? first[index] : rest ?? true, depth: depth + 1)
            })
    }

    /// A number within its bounds; the smallest ordinary one where there are none.
    private static func number(_ schema: JSONValue, isInteger: Bool) -> JSONValue {
        let least = schema["minimum"]?.doubleValue
        let above = schema["exclusiveMinimum"]?.doubleValue
        let most = schema["maximum"]?.doubleValue
        let below = schema["exclusiveMaximum"]?.doubleValue
        let factor = schema["multipleOf"]?.doubleValue ?? 0
        let step = factor > 0 ? factor : 1
        let low = least ?? above ?? 0
        let high = most ?? below ?? 0
        let candidates = [
            isInteger ? 1 : 1.5, 1, 0, step, low, low.rounded(.up), (low / step).rounded(.up) * step,
            ((low / step).rounded(.down) + 1) * step, (low + high) / 2, high, high.rounded(.down),
            (high / step).rounded(.down) * step, ((high / step).rounded(.up) - 1) * step,
        ]
        let found = candidates.first { value in
            value >= least ?? value && value <= most ?? value
                && value > above ?? -.infinity && value < below ?? .infinity
                && (!isInteger || value == value.rounded())
                && (factor <= 0 || abs((value / factor).rounded() * factor - value) < 1e-9)
        }
        let value = found ?? candidates[0]
        return Int(exactly: value).map(JSONValue.integer) ?? .number(String(value))
    }

    private static let formats = [
        "date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01", "time": "00:00:00Z", "duration": "P1D",
        "email": "x@example.com", "hostname": "example.com", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1",
        "uri": "https://example.com/", "url": "https://example.com/", "uuid": "00000000-0000-4000-8000-000000000000",
    ]

    private static func text(_ schema: JSONValue) -> String {
        if let format = schema["format"]?.stringValue, let text = formats[format] { return text }
        let length = min(max(schema["minLength"]?.intValue ?? 1, 1), maximumCount)
        return String(repeating: "x", count: min(length, max(0, schema["maxLength"]?.intValue ?? length)))
    }

    /// A schema without references and choices at its top.
    private func resolve(_ schema: JSONValue, depth: Int) -> JSONValue {
        guard depth < Self.maximumDepth, var object = schema.objectValue else { return schema }
        if let reference = object["$ref"]?.stringValue { return resolve(target(of: reference), depth: depth + 1) }
        var parts = object["allOf"]?.arrayValue ?? []
        if let choice = (object["anyOf"] ?? object["oneOf"])?.arrayValue?.first { parts.append(choice) }
        for key in ["allOf", "anyOf", "oneOf"] { object[key] = nil }
        for part in parts { Self.merge(resolve(part, depth: depth + 1), into: &object) }
        return .object(object)
    }

    private static func merge(_ part: JSONValue, into object: inout JSONObject) {
        for member in part.objectValue?.members ?? [] {
            switch (member.key, object[member.key], member.value) {
            case ("properties", .object(var properties)?, .object(let more)):
                for property in more.members { properties[property.key] = property.value }
                object["properties"] = .object(properties)
            case ("required", .array(let names)?, .array(let more)):
                object["required"] = .array(names + more.filter { !names.contains($0) })
            default: object[member.key] = member.value
            }
        }
    }

    /// What a reference within the document, such as `#/$defs/Name`, names; anything goes where it names nothing.
    private func target(of reference: String) -> JSONValue {
        guard reference.hasPrefix("#") else { return true }
        var value = root
        for part in reference.dropFirst().split(separator: "/") {
            let key = part.split(separator: "~1", omittingEmptySubsequences: false).joined(separator: "/")
                .split(separator: "~0", omittingEmptySubsequences: false).joined(separator: "~")
            if let elements = value.arrayValue, let index = Int(key), elements.indices.contains(index) {
                value = elements[index]
            } else {
                guard let member = value[key] else { return true }
                value = member
            }
        }
        return value
    }
}
