/// OpenAI's function tools in the Messages API's form.
enum FunctionTools {
    /// Appends a function that the model may call.
    static func append(_ function: FieldReader, to request: inout RunRequest) throws(APIError) {
        let tool = try tool(function)
        guard !request.tools.contains(where: { $0.name == tool.name }) else {
            throw .invalid(function.path("name"), "`\(function.path("name"))`: two tools have the same name.")
        }
        request.tools.append(tool)
        if try function.bool("strict") == true, !request.ignoredParameters.contains("tools.strict") {
            request.ignoredParameters.append("tools.strict")
        }
    }

    private static func tool(_ function: FieldReader) throws(APIError) -> RunRequest.Tool {
        _ = try function.required("name")
        let name = try function.string("name") ?? ""
        let description = try function.string("description")
        try checkName(name, path: function.path("name"), limit: 64)
        let path = function.path("parameters")
        var schema = JSONObject()
        if let parameters = function.value("parameters") {
            guard let object = parameters.objectValue else {
                throw .invalid(
                    path, "`\(path)` must be a JSON Schema, an object, not \(parameters.kindDescription).")
            }
            schema = object
        }
        // A function without parameters; the API wants to be told that its input is an object.
        if schema["type"] == nil { schema["type"] = "object" }
        guard schema["type"] == "object" else {
            throw .invalid("\(path).type", "`\(path).type` must be `object`.")
        }
        if schema["properties"] == nil, schema.members.count == 1 { schema["properties"] = [:] }
        var definition = JSONObject([("name", .string(name))])
        if let description, !description.isEmpty { definition["description"] = .string(description) }
        definition["input_schema"] = ToolSchema.flattened(.object(schema))
        return RunRequest.Tool(name: name, definition: definition)
    }

    /// A tool's name as both vendors take it.
    static func checkName(_ name: String, path: String, limit: Int) throws(APIError) {
        let isPlain = name.utf8.allSatisfy { isNameByte($0) }
        guard isPlain, !name.isEmpty, name.utf8.count <= limit,
            ToolNames.toCLI(name).utf8.count <= ToolNames.longest
        else {
            throw .invalid(path, "`\(path)` must have 1 to \(limit) letters, digits, `_` and `-`.")
        }
    }

    /// A call in the history.
    static func callBlock(id: String, name: String, arguments: String) -> JSONValue {
        var input: JSONValue = [:]
        if !arguments.isBlank {
            // A model's own slip may be in the history: it is kept, not refused.
            let parsed = try? JSONParser.parse(Array(arguments.utf8))
            input = parsed?.objectValue == nil ? ["arguments": .string(arguments)] : parsed ?? [:]
        }
        return ["type": "tool_use", "id": .string(fitID(id)), "name": .string(name), "input": input]
    }

    /// A call's result in the history.
    static func resultBlock(id: String, content: [JSONValue]) -> JSONValue {
        var block = JSONObject([("type", "tool_result"), ("tool_use_id", .string(fitID(id)))])
        if !content.isEmpty { block["content"] = .array(content) }
        return .object(block)
    }

    /// The choice of tools in the Messages API's form; nil for the model's own.
    ///
    /// - Parameter isParallel: OpenAI's `parallel_tool_calls`.
    static func choice(_ type: String, name: String? = nil, isParallel: Bool) -> JSONObject? {
        var choice = JSONObject([("type", .string(type))])
        if let name { choice["name"] = .string(name) }
        if !isParallel, type != "none" { choice["disable_parallel_tool_use"] = true }
        return type == "auto" && isParallel ? nil : choice
    }

    /// The names of the tools that a history calls, where a request lists none: the API wants them known.
    static func historical(_ turns: [RunRequest.Turn]) -> [RunRequest.Tool] {
        var names: [String] = []
        for turn in turns where turn.role == .assistant {
            for block in turn.blocks where block["type"] == "tool_use" {
                if let name = block["name"]?.stringValue, !names.contains(name) { names.append(name) }
            }
        }
        return names.map { name in
            RunRequest.Tool(
                name: name,
                definition: JSONObject([
                    ("name", .string(name)), ("input_schema", ["type": "object", "properties": [:]]),
                ])
            )
        }
    }

    /// An id that the API takes; the ids of other vendors' models may have other characters.
    static func fitID(_ id: String) -> String {
        String(decoding: id.utf8.map { isNameByte($0) ? $0 : UInt8(ascii: "_") }, as: UTF8.self)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }
}
