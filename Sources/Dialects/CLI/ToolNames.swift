/// The names by which the CLI knows a caller's tools.
///
/// They are the caller's own (the CLI runs with CLAUDE_AGENT_SDK_MCP_NO_PREFIX). Names that mean something to the CLI itself
/// get the prefix that it would give them otherwise: its own tools' inputs are rewritten on their way, and a `Bash` brings
/// instructions about git into the prompt (seen with CLI 2.1.330).
enum ToolNames {
    /// The MCP server by which the caller's tools are offered.
    static let server = "client"
    /// That server as the CLI is told of it: it is the one that writes to the CLI's pipes.
    static let ownServer: JSONValue = ["type": "sdk", "name": .string(server)]
    /// The CLI's own tool for structured output.
    static let structuredOutput = "StructuredOutput"
    /// The Messages API's limit.
    static let longest = 128

    private static let prefix = "mcp__\(server)__"
    /// Tools that the CLI has or had.
    private static let reserved: Set<String> = [
        "Agent", "AgentOutput", "AgentOutputTool", "AskUserQuestion", "Bash", "BashOutput", "BashOutputTool", "Brief",
        "Config", "Computer", "CronCreate", "CronDelete", "CronList", "Edit", "EnterPlanMode", "EnterWorktree",
        "ExitPlanMode", "ExitWorktree", "FileEdit", "FileRead", "FileWrite", "Glob", "Grep", "KillBash", "KillShell",
        "LS", "LSP", "ListMcpResources", "ListMcpResourcesTool", "MCPSearch", "Monitor", "MultiEdit", "NotebookEdit",
        "NotebookRead", "PowerShell", "PushNotification", "REPL", "Read", "ReadMcpResource", "ReadMcpResourceTool",
        "RemoteTrigger", "ScheduleWakeup", "SendMessage", "SendUserMessage", "Skill", "SlashCommand", "Sleep",
        structuredOutput, "Task", "TaskCreate", "TaskGet", "TaskList", "TaskOutput", "TaskStop", "TaskUpdate",
        "TeamCreate", "TeamDelete", "TodoRead", "TodoWrite", "ToolSearch", "WebFetch", "WebSearch", "Workflow", "Write",
    ]

    /// The CLI's name for the caller's.
    static func toCLI(_ name: String) -> String {
        reserved.contains(name) || name.hasPrefix("mcp__") ? prefix + name : name
    }

    /// The caller's name for the CLI's.
    static func fromCLI(_ name: String) -> String {
        name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : name
    }
}
