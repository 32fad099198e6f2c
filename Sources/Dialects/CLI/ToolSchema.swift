/// A tool's input schema as the Messages API takes it: without `anyOf`, `oneOf` and `allOf` at its top.
enum ToolSchema {
    private static let combinators = ["anyOf", "oneOf", "allOf"]

    /// The schema with the properties of all its alternatives; what tells them apart goes into its description.
    static func flattened(_ schema: JSONValue) -> JSONValue {
        guard var object = schema.objectValue, combinators.contains(where: { object[$0] != nil }) else { return schema }
        var properties = object["properties"]?.objectValue ?? JSONObject()
        var required = object["required"]?.arrayValue ?? []
        var rules = JSONObject()
        for combinator in combinators {
            guard let branches = object[combinator]?.arrayValue else { continue }
            rules[combinator] = object[combinator]
            object[combinator] = nil
            for branch in branches {
                for member in branch["properties"]?.objectValue?.members ?? [] where properties[member.key] == nil {
                    properties[member.key] = member.value
                }
                // Only what all of several demand is demanded in any case.
                if combinator == "allOf" {
                    for name in branch["required"]?.arrayValue ?? [] where !required.contains(name) {
                        required.append(name)
                    }
                }
            }
        }
        object["type"] = "object"
        object["properties"] = .object(properties)
        if !required.isEmpty { object["required"] = .array(required) }
        let text = String(decoding: JSONWriter.bytes(.object(rules)), as: UTF8.self)
        let description = object["description"]?.stringValue.map { $0 + "\n" } ?? ""
        object["description"] = .string(description + "The input must also fit this JSON Schema: " + text)
        return .object(object)
    }
}
