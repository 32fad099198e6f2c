/// Decodes `POST /api/run`.
public enum DirectRequest {
    /// Tools of the CLI that a caller may name (CLI 2.1.330, `system/init` with `--tools default`, and older names).
    ///
    /// A closed list, because names become arguments of the CLI's command line, where nothing of a caller's may stand.
    public static let tools = [
        "Agent", "Bash", "Edit", "Glob", "Grep", "LS", "MultiEdit", "NotebookEdit", "Read", "Skill", "Task",
        "TodoWrite",
        "WebFetch", "WebSearch", "Write",
    ]

    /// Tools that neither write nor execute: what a call that names none runs with.
    ///
    /// They read the run's own directory only, since no permission beyond it is granted.
    public static let defaultTools = ["Glob", "Grep", "Read"]

    private static let used: Set<String> = [
        "prompt", "model", "allowedTools", "workingDirectory", "sessionId", "stream",
    ]

    /// The request.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue) throws(APIError) -> RunRequest {
        let fields = try FieldReader(json, path: "")
        _ = try fields.required("prompt")
        let prompt = try fields.string("prompt") ?? ""
        guard !prompt.isBlank else { throw .invalid("prompt", "`prompt` is blank. Say what is to be done.") }
        if try fields.bool("stream") ?? false {
            throw .invalid(
                "stream",
                "`stream`: POST /api/run answers as a whole. For a stream use POST "
                    + "/v1/messages or /v1/chat/completions.")
        }
        if let session = try fields.string("sessionId") {
            throw APIError(
                .sessionNotFound,
                "The session \(session.prefix(64).filter { $0.isASCII && !$0.isWhitespace }) does not exist: runs "
                    + "are not continued here. Leave `sessionId` out and send what the run needs in `prompt`.",
                parameter: "sessionId")
        }
        var profile = AgentProfile(
            tools: defaultTools, allowRules: [], workingDirectory: try fields.string("workingDirectory"))
        if let rules = try fields.strings("allowedTools") {
            profile.tools = []
            profile.allowRules = []
            for (index, rule) in rules.enumerated() {
                let path = "allowedTools[\(index)]"
                let tool = try toolName(ofRule: rule, path: path)
                if !profile.tools.contains(tool) { profile.tools.append(tool) }
                let granted = try confined(rule, of: tool, path: path)
                if !profile.allowRules.contains(granted) { profile.allowRules.append(granted) }
            }
        }
        var request = RunRequest(
            model: try fields.string("model"), turns: [], profile: .agent(profile),
            ignoredParameters: fields.names.filter { !used.contains($0) })
        request.append(.user, [RunRequest.Turn.text(prompt)])
        return request
    }

    /// The rule as the CLI is told it: a file tool keeps to the working directory.
    ///
    /// A bare `Write` would let the model write wherever the service may, a bare `Read` read there. In the CLI's rules `Edit`
    /// stands for all tools that write files and `Read` for all that read them (tried with CLI 2.1.330).
    private static func confined(_ rule: String, of tool: String, path: String) throws(APIError) -> String {
        let kind: String
        switch tool {
        case "Edit", "MultiEdit", "NotebookEdit", "Write": kind = "Edit"
        case "Glob", "Grep", "LS", "Read": kind = "Read"
        default: return rule
        }
        guard rule.utf8.count > tool.utf8.count else { return "\(kind)(./**)" }
        let specifier = rule.dropFirst(tool.count + 1).dropLast()
        guard specifier.hasPrefix("./"), !specifier.split(separator: "/").contains("..") else {
            throw .invalid(
                path,
                "`\(path)`: a file tool works below the working directory. Write `\(tool)`, or a path in it such as "
                    + "`\(tool)(./src/**)`.")
        }
        return "\(kind)(\(specifier))"
    }

    /// The tool of a rule: `Bash` of `Bash` and of `Bash(git *)`.
    private static func toolName(ofRule rule: String, path: String) throws(APIError) -> String {
        let name = rule.prefix { $0 != "(" }
        let specifier = rule.dropFirst(name.count)
        let isWellFormed =
            specifier.isEmpty
            || (specifier.count > 2 && specifier.hasSuffix(")")
                && specifier.unicodeScalars.allSatisfy { !$0.properties.isWhitespace || $0 == " " })
        guard isWellFormed, let tool = tools.first(where: { $0 == name }) else {
            throw .invalid(
                path,
                "`\(path)` must be a tool's name, or `Name(specifier)` such as `Bash(git *)`. Tools: "
                    + "\(tools.joined(separator: ", ")).")
        }
        return tool
    }
}
