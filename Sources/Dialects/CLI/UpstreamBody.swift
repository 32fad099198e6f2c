/// What a request needs of the CLI's own request to the API: CLAUDE_CODE_EXTRA_BODY, whose members the CLI puts into the body.
///
/// So the model sees a caller's tools exactly as they are: through MCP the CLI cuts descriptions at 4096 characters and
/// rewrites schemas with `oneOf` at their top (seen with CLI 2.1.330).
enum UpstreamBody {
    /// The members; empty where the CLI's own request will do.
    static func extras(for request: RunRequest) -> JSONObject {
        var body = JSONObject()
        // The CLI's own tools are in its own request, and the body's would take their place.
        let own = request.usesCLITools ? [] : request.tools
        var tools = own.map { tool -> JSONValue in
            var definition = tool.definition
            definition["name"] = .string(ToolNames.toCLI(tool.name))
            return .object(definition)
        }
        if let schema = request.outputSchema, !request.usesCLITools {
            tools.append([
                "name": .string(ToolNames.structuredOutput),
                "description": "Give your final answer with this tool, in the structure asked for. Call it just once.",
                "input_schema": ToolSchema.flattened(OutputSchema.forModel(schema)),
            ])
        }
        if !tools.isEmpty { body["tools"] = .array(tools) }
        if var choice = request.toolChoice, !request.usesCLITools || !request.offeredTools.isEmpty {
            if let name = choice["name"]?.stringValue { choice["name"] = .string(ToolNames.toCLI(name)) }
            body["tool_choice"] = .object(choice)
        }
        // The API refuses words of white space; StopScanner finds those.
        let words = request.stopSequences.filter { !$0.isBlank }
        if !words.isEmpty { body["stop_sequences"] = .array(words.map { .string($0) }) }
        for member in request.sampling.members { body[member.key] = member.value }
        if case .native(let thinking) = request.thinking { body["thinking"] = thinking }
        return body
    }
}
