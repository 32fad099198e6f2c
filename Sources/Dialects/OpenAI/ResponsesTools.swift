/// Decodes a response's `tools` and `tool_choice`.
///
/// Functions only: the vendor's hosted tools run on the vendor's machines.
enum ResponsesTools {
    /// Takes the tools and the choice among them.
    static func decode(_ fields: FieldReader, _ request: inout RunRequest) throws(APIError) {
        for (index, tool) in (try fields.array("tools") ?? []).enumerated() {
            try append(try FieldReader(tool, path: "tools[\(index)]"), to: &request)
        }
        let isParallel = try fields.bool("parallel_tool_calls") ?? true
        guard !request.tools.isEmpty else {
            guard let choice = fields.value("tool_choice"), choice != "none", choice != "auto" else { return }
            throw .invalid("tool_choice", "`tool_choice` needs `tools` to choose from.")
        }
        request.toolChoice = try choice(fields, isParallel: isParallel, &request)
        // The API takes no forced choice from a model that thinks first.
        if ["any", "tool"].contains(request.toolChoice?["type"]?.stringValue) { request.thinking = .off }
    }

    /// The tools as the response repeats them.
    static func echo(_ tools: [JSONValue]) -> JSONValue {
        .array(
            tools.map { tool in
                [
                    "type": "function", "name": tool["name"] ?? "", "description": tool["description"] ?? .null,
                    "parameters": tool["parameters"] ?? .null, "strict": tool["strict"] ?? .null,
                ]
            })
    }

    private static func append(_ tool: FieldReader, to request: inout RunRequest) throws(APIError) {
        _ = try tool.required("type")
        guard try tool.string("type") == "function" else {
            throw .invalid(
                tool.path("type"),
                "`\(tool.path("type"))` must be `function`: only functions are served here, no hosted or custom tools.")
        }
        try FunctionTools.append(tool, to: &request)
    }

    private static func choice(
        _ fields: FieldReader, isParallel: Bool, _ request: inout RunRequest
    ) throws(APIError) -> JSONObject? {
        guard let value = fields.value("tool_choice") else {
            return FunctionTools.choice("auto", isParallel: isParallel)
        }
        if let word = value.stringValue {
            guard ["none", "auto", "required"].contains(word) else {
                throw .invalid("tool_choice", "`tool_choice` must be none, auto, required, or name a function.")
            }
            return FunctionTools.choice(word == "required" ? "any" : word, isParallel: isParallel)
        }
        let choice = try FieldReader(value, path: "tool_choice")
        switch try choice.string("type") {
        case "function":
            let name = try choice.required("name").stringValue ?? ""
            try requireTool(name, choice.path("name"), request)
            return FunctionTools.choice("tool", name: name, isParallel: isParallel)
        case "allowed_tools": return try allowed(choice, isParallel: isParallel, &request)
        default:
            throw .invalid(
                "tool_choice.type",
                "`tool_choice.type` must be `function` or `allowed_tools`: only functions are served here.")
        }
    }

    /// Some of the tools only: the others are not offered.
    private static func allowed(
        _ choice: FieldReader, isParallel: Bool, _ request: inout RunRequest
    ) throws(APIError) -> JSONObject? {
        _ = try choice.required("tools")
        var names: [String] = []
        for (index, tool) in (try choice.array("tools") ?? []).enumerated() {
            let tool = try FieldReader(tool, path: "\(choice.path("tools"))[\(index)]")
            guard try tool.string("type") ?? "function" == "function" else {
                throw .invalid(tool.path("type"), "`\(tool.path("type"))` must be `function`.")
            }
            let name = try tool.required("name").stringValue ?? ""
            try requireTool(name, tool.path("name"), request)
            names.append(name)
        }
        guard !names.isEmpty else {
            throw .invalid(choice.path("tools"), "`\(choice.path("tools"))` is empty. Name at least one function.")
        }
        request.tools.removeAll { !names.contains($0.name) }
        let mode = try choice.choice("mode", of: ["auto", "required", "none"]) ?? "auto"
        return FunctionTools.choice(mode == "required" ? "any" : mode, isParallel: isParallel)
    }

    private static func requireTool(_ name: String, _ path: String, _ request: RunRequest) throws(APIError) {
        guard request.tools.contains(where: { $0.name == name }) else {
            throw .invalid(path, "`\(path)` names a function that is not among the request's tools.")
        }
    }
}
