/// The Messages API's tools.
enum MessageTools {
    /// Tools that the vendor defines and the caller runs, by the beginning of their type.
    private static let clientTypes = ["bash_", "text_editor_", "memory_"]

    /// A tool, as it is but for what the CLI sets itself.
    static func tool(_ tool: JSONValue, path: String) throws(APIError) -> RunRequest.Tool {
        let fields = try FieldReader(tool, path: path)
        _ = try fields.required("name")
        let name = try fields.string("name") ?? ""
        try FunctionTools.checkName(name, path: fields.path("name"), limit: 128)
        _ = try fields.string("description")
        let type = try fields.string("type") ?? "custom"
        if type == "custom" {
            let schema = try FieldReader(try fields.required("input_schema"), path: fields.path("input_schema"))
            guard schema.value("type") == "object" else {
                throw .invalid(schema.path("type"), "`\(schema.path("type"))` must be `object`.")
            }
        } else if !clientTypes.contains(where: { type.hasPrefix($0) }) {
            throw .invalid(
                fields.path("type"),
                "`\(fields.path("type"))`: tools that run on the vendor's servers are not served here. Send tools with an "
                    + "`input_schema`, or use POST /api/run with allowedTools.")
        }
        var definition = tool.objectValue ?? JSONObject()
        // The CLI marks what is cached, and the API takes four marks in all.
        definition["cache_control"] = nil
        definition["defer_loading"] = nil
        if type == "custom" { definition["type"] = nil }
        return RunRequest.Tool(name: name, definition: definition)
    }
}
