/// What an operator lets the callers of `POST /api/run` ask for.
public struct DirectPolicy: Sendable, Equatable {
    /// The permission modes that the CLI has (2.1.251 to 2.1.332): a closed list, because a mode becomes an argument.
    public static let knownPermissionModes = [
        "default", "acceptEdits", "plan", "dontAsk", "auto", "bypassPermissions",
    ]
    /// Modes in which nothing is done that was not granted by name.
    public static let defaultPermissionModes = ["default", "acceptEdits", "plan", "dontAsk"]

    /// Tools or rules that may be named in `allowedTools`; nil for every tool of ``DirectRequest/tools``.
    public var tools: [String]?
    /// Values that `permissionMode` may have.
    public var permissionModes: [String]
    /// Whether a caller may bring MCP servers, which the service then starts or calls.
    public var allowsMCPServers: Bool
    /// The longest time that a run may take.
    public var timeoutLimit: Duration

    /// A policy.
    public init(
        tools: [String]? = nil, permissionModes: [String] = defaultPermissionModes, allowsMCPServers: Bool = false,
        timeoutLimit: Duration = .seconds(600)
    ) {
        self.tools = tools
        self.permissionModes = permissionModes
        self.allowsMCPServers = allowsMCPServers
        self.timeoutLimit = timeoutLimit
    }

    /// Whether a rule may be granted: the operator names the whole tool, or the same rule.
    func allows(_ rule: ToolRule) -> Bool {
        guard let tools else { return true }
        return tools.contains(rule.tool) || tools.contains(rule.text)
    }

    /// Whether the whole tool may be granted.
    func allowsAll(of tool: String) -> Bool { tools?.contains(tool) ?? true }

    /// What a call that names no tools is granted: the reading tools, as far as the operator lets them be.
    var defaultRules: [String] {
        guard let tools else { return DirectRequest.defaultTools }
        return DirectRequest.defaultTools.flatMap { tool in
            tools.contains(tool) ? [tool] : tools.filter { ToolRule($0)?.tool == tool }
        }
    }
}
