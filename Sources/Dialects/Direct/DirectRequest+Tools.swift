extension DirectRequest {
    /// Modes in which the CLI permits more than the rules that were granted.
    private static let widePermissionModes: Set<String> = ["acceptEdits", "auto", "bypassPermissions"]

    /// Reads `allowedTools`, `disallowedTools` and `permissionMode`.
    ///
    /// - Parameter profile: Has its MCP servers already.
    static func decodeTools(
        _ fields: FieldReader, _ policy: DirectPolicy, _ profile: inout AgentProfile
    ) throws(APIError) {
        let servers = profile.mcpServers.members.map(\.key)
        var rules: [ToolRule] = []
        for (index, text) in (try fields.strings("allowedTools") ?? policy.defaultRules).enumerated() {
            let path = "allowedTools[\(index)]"
            if try isMCP(text, servers, path) {
                append(text, to: &profile.allowRules)
                continue
            }
            let rule = try rule(text, path: path)
            guard policy.allows(rule) else { throw forbidden(rule, policy, path) }
            guard let granted = rule.granted else {
                throw .invalid(
                    path,
                    "`\(path)`: a file tool works below the working directory. Write `\(rule.tool)`, or a path in it such "
                        + "as `\(rule.tool)(./src/**)`.")
            }
            rules.append(rule)
            append(rule.tool, to: &profile.tools)
            append(granted, to: &profile.allowRules)
        }
        for (index, text) in (try fields.strings("disallowedTools") ?? []).enumerated() {
            let path = "disallowedTools[\(index)]"
            if try isMCP(text, servers, path) {
                append(text, to: &profile.denyRules)
                continue
            }
            let rule = try rule(text, path: path)
            guard let denied = rule.denied else {
                throw .invalid(
                    path,
                    "`\(path)`: a file tool's path begins with `./` for the working directory, or with `//` for the root."
                )
            }
            if rule.specifier == nil { profile.tools.removeAll { $0 == rule.tool } }
            append(denied, to: &profile.denyRules)
        }
        profile.permissionMode = try permissionMode(fields, policy, rules)
    }

    private static func append(_ text: String, to list: inout [String]) {
        if !list.contains(text) { list.append(text) }
    }

    private static func rule(_ text: String, path: String) throws(APIError) -> ToolRule {
        guard let rule = ToolRule(text) else {
            throw .invalid(
                path,
                "`\(path)` must be a tool's name, or `Name(specifier)` such as `Bash(git *)`. Tools: "
                    + "\(tools.joined(separator: ", ")).")
        }
        return rule
    }

    private static func isMCP(_ text: String, _ servers: [String], _ path: String) throws(APIError) -> Bool {
        guard MCPRule.isOne(text) else { return false }
        guard MCPRule.isKnown(text, servers: servers) else {
            throw .invalid(
                path, "`\(path)` must be `mcp__SERVER` or `mcp__SERVER__TOOL` for a server in `mcpServers`.")
        }
        return true
    }

    private static func forbidden(_ rule: ToolRule, _ policy: DirectPolicy, _ path: String) -> APIError {
        let allowed = policy.tools ?? []
        return APIError(
            .forbidden,
            "`\(path)`: this service does not allow it. "
                + (allowed.isEmpty ? "No tools are allowed." : "Allowed: \(allowed.joined(separator: ", ")).")
                + " Its operator decides (ALLOWED_TOOLS).",
            parameter: path)
    }

    private static func permissionMode(
        _ fields: FieldReader, _ policy: DirectPolicy, _ rules: [ToolRule]
    ) throws(APIError) -> String? {
        let path = "permissionMode"
        guard let mode = try fields.choice(path, of: DirectPolicy.knownPermissionModes) else { return nil }
        guard policy.permissionModes.contains(mode) else {
            throw APIError(
                .forbidden,
                "`permissionMode` must be one of \(policy.permissionModes.joined(separator: ", ")) at this service. Its "
                    + "operator decides (PERMISSION_MODES).",
                parameter: path)
        }
        // The mode would permit what the operator has left out.
        if widePermissionModes.contains(mode), let rule = rules.first(where: { !policy.allowsAll(of: $0.tool) }) {
            throw APIError(
                .forbidden,
                "`permissionMode`: `\(mode)` would permit more of `\(rule.tool)` than this service allows. Use `default`.",
                parameter: path)
        }
        return mode
    }
}
