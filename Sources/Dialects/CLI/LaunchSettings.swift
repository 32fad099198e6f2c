/// What a CLI process is told of one request by `apply_flag_settings`.
enum LaunchSettings {
    /// The settings; nil where the CLI's own will do.
    ///
    /// - Parameter model: The model in the CLI's own words.
    static func settings(for request: RunRequest, model: String?) -> JSONValue? {
        var settings = JSONObject()
        if let model { settings["model"] = .string(model) }
        var environment = JSONObject()
        if let limit = request.maxOutputTokens { environment["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = .string(String(limit)) }
        if request.thinking == .off { environment["CLAUDE_CODE_DISABLE_THINKING"] = "1" }
        let extras = UpstreamBody.extras(for: request)
        if !extras.members.isEmpty {
            let text = String(decoding: JSONWriter.bytes(.object(extras)), as: UTF8.self)
            environment["CLAUDE_CODE_EXTRA_BODY"] = .string(text)
        }
        if !environment.members.isEmpty { settings["env"] = .object(environment) }
        if let effort = request.effort { settings["effortLevel"] = .string(effort) }
        let permissions = permissions(of: request)
        if !permissions.members.isEmpty { settings["permissions"] = .object(permissions) }
        return settings.members.isEmpty ? nil : .object(settings)
    }

    private static func permissions(of request: RunRequest) -> JSONObject {
        var permissions = JSONObject()
        switch request.profile {
        case .chat:
            let granted = request.hostTools.compactMap(\.granted)
            if !granted.isEmpty { permissions["allow"] = strings(granted) }
        case .agent(let agent):
            let allowed = agent.allowRules.flatMap { [$0] + reaching($0, into: agent.addedDirectories) }
            if !allowed.isEmpty { permissions["allow"] = strings(allowed) }
            if !agent.denyRules.isEmpty { permissions["deny"] = strings(agent.denyRules) }
            if !agent.addedDirectories.isEmpty {
                permissions["additionalDirectories"] = strings(agent.addedDirectories)
            }
        }
        return permissions
    }

    /// What a file tool that may work in the whole working directory may do in the added ones; a second `/` begins a path at
    /// the root.
    private static func reaching(_ rule: String, into directories: [String]) -> [String] {
        let ending = "(\(ToolRule.wholeDirectory))"
        guard rule.hasSuffix(ending) else { return [] }
        let tool = rule.dropLast(ending.count)
        guard tool == "Edit" || tool == "Read" else { return [] }
        return directories.map { "\(tool)(/\($0 == "/" ? "" : $0)/**)" }
    }

    private static func strings(_ strings: [String]) -> JSONValue { .array(strings.map { .string($0) }) }
}
