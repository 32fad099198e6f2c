extension RunRequest {
    /// What a CLI process must be told on its command line: numbers, and words of closed lists.
    ///
    /// All else goes over standard input. A limit of messages or dollars is taken nowhere else (seen with CLI 2.1.251 and 2.1.332); a mode there would be one
    /// more line to wait for.
    public var launchArguments: [String] {
        switch profile {
        case .chat:
            var names: [String] = []
            for rule in hostTools where !names.contains(rule.tool) { names.append(rule.tool) }
            // The caller's own tools need no permission: the caller runs them.
            return ["--tools", names.joined(separator: ","), "--allowedTools", "mcp__\(ToolNames.server)"]
        case .agent(let agent):
            let tools = agent.tools.filter { DirectRequest.tools.contains($0) }
            var arguments = ["--tools", tools.joined(separator: ",")]
            if let mode = agent.permissionMode, DirectPolicy.knownPermissionModes.contains(mode) {
                arguments.append("--permission-mode=\(mode)")
            }
            if let turns = agent.maxTurns { arguments.append("--max-turns=\(turns)") }
            if let budget = agent.maxBudgetUSD { arguments.append("--max-budget-usd=\(budget)") }
            return arguments
        }
    }
}
