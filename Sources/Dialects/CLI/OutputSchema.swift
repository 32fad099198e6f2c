/// The JSON Schema of a structured answer, as the model sees it and as the CLI's validator takes it.
enum OutputSchema {
    /// What the CLI's validator knows (JSON Schema draft 7 and `$defs`).
    ///
    /// It is strict: at any other keyword it offers no structured output at all, and says nothing (seen with CLI 2.1.330).
    /// What is left out for it is still in the schema that the model sees.
    private static let keywords: Set<String> = [
        "$id", "$ref", "$comment", "$defs", "definitions", "type", "enum", "const", "title", "description", "default",
        "examples", "readOnly", "writeOnly", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
        "maxLength", "minLength", "pattern", "format", "items", "additionalItems", "maxItems", "minItems",
        "uniqueItems", "contains", "maxProperties", "minProperties", "required", "properties", "patternProperties",
        "additionalProperties", "dependencies", "propertyNames", "if", "then", "else", "allOf", "anyOf", "oneOf", "not",
        "contentEncoding", "contentMediaType",
    ]
    /// Keywords whose value is a schema.
    private static let schemas: Set<String> = [
        "items", "additionalItems", "contains", "additionalProperties", "propertyNames", "if", "then", "else", "not",
    ]
    /// Keywords whose members are schemas.
    private static let schemaMaps: Set<String> = [
        "$defs", "definitions", "properties", "patternProperties", "dependencies",
    ]
    /// Keywords whose elements are schemas.
    private static let schemaLists: Set<String> = ["allOf", "anyOf", "oneOf", "items"]
    /// Deeper than any schema in earnest; a caller's JSON is bounded by the parser as well.
    private static let depthLimit = 200

    /// The tool's input schema for the model: the caller's own, said to be an object.
    static func forModel(_ schema: JSONValue) -> JSONValue {
        guard var object = schema.objectValue else { return schema }
        if object["type"] == nil { object["type"] = "object" }
        return .object(object)
    }

    /// The schema for the CLI's validator.
    static func forValidator(_ schema: JSONValue) -> JSONValue { reduced(forModel(schema), depth: 0) }

    private static func reduced(_ schema: JSONValue, depth: Int) -> JSONValue {
        guard let object = schema.objectValue, depth < depthLimit else { return schema }
        var result = JSONObject()
        for member in object.members {
            // 2020-12 calls a tuple's elements so; draft 7 has them in `items`, and what follows in `additionalItems`.
            if member.key == "prefixItems", let elements = member.value.arrayValue {
                result["items"] = .array(elements.map { reduced($0, depth: depth + 1) })
                if let rest = object["items"] { result["additionalItems"] = reduced(rest, depth: depth + 1) }
            } else if member.key == "items", object["prefixItems"] != nil {
                continue
            } else if keywords.contains(member.key) {
                result[member.key] = value(member.value, of: member.key, depth: depth)
            }
        }
        return .object(result)
    }

    private static func value(_ value: JSONValue, of keyword: String, depth: Int) -> JSONValue {
        if schemaMaps.contains(keyword), let map = value.objectValue {
            return .object(
                JSONObject(map.members.map { .init(key: $0.key, value: reduced($0.value, depth: depth + 1)) }))
        }
        if schemaLists.contains(keyword), let list = value.arrayValue {
            return .array(list.map { reduced($0, depth: depth + 1) })
        }
        return schemas.contains(keyword) ? reduced(value, depth: depth + 1) : value
    }
}
