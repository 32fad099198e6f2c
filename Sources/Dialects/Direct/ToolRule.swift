/// A tool's name, or a permission rule `Name(specifier)`, as callers and operators write it.
///
/// In the CLI's rules `Edit(…)` stands for all tools that write files and `Read(…)` for all that read them; a rule such as
/// `Write(./x)` is taken and does nothing (seen with CLI 2.1.251 and 2.1.332).
public struct ToolRule: Sendable, Equatable {
    /// What is granted of every file tool that is named without a specifier.
    static let wholeDirectory = "./**"

    /// As it was written.
    public let text: String
    /// The tool: `Bash` of `Bash` and of `Bash(git *)`.
    public let tool: String
    /// What stands between the parentheses; nil without them.
    public let specifier: String?

    /// From its text; nil for one that names no tool of ``DirectRequest/tools``, or that is malformed.
    public init?(_ text: String) {
        let name = text.prefix { $0 != "(" }
        guard let tool = DirectRequest.tools.first(where: { $0 == name }) else { return nil }
        self.init(text, tool: tool)
    }

    /// From its text, where the tool's name is known to be good.
    init?(_ text: String, tool: String) {
        let rest = text.dropFirst(tool.count)
        self.text = text
        self.tool = tool
        guard !rest.isEmpty else {
            specifier = nil
            return
        }
        guard rest.count > 2, rest.hasPrefix("("), rest.hasSuffix(")"),
            rest.unicodeScalars.allSatisfy({ !$0.properties.isWhitespace || $0 == " " })
        else { return nil }
        specifier = String(rest.dropFirst().dropLast())
    }

    /// The tool that stands for this one in the CLI's rules about paths; nil for a tool that has none.
    var fileTool: String? {
        switch tool {
        case "Edit", "MultiEdit", "NotebookEdit", "Write": "Edit"
        case "Glob", "Grep", "LS", "Read": "Read"
        default: nil
        }
    }

    /// The rule as the CLI is told to grant it; nil where a file tool's path is not below the run's directory.
    ///
    /// A bare `Write` would let the model write wherever the service may, a bare `Read` read there.
    public var granted: String? {
        guard let fileTool else { return text }
        guard let specifier else { return "\(fileTool)(\(Self.wholeDirectory))" }
        guard specifier.hasPrefix("./"), !Self.climbs(specifier) else { return nil }
        return "\(fileTool)(\(specifier))"
    }

    /// The rule as the CLI is told to refuse it; nil where a file tool's path could mean several things.
    var denied: String? {
        guard let fileTool, let specifier else { return text }
        guard specifier.hasPrefix("./") || specifier.hasPrefix("//"), !Self.climbs(specifier) else { return nil }
        return "\(fileTool)(\(specifier))"
    }

    private static func climbs(_ path: String) -> Bool { path.split(separator: "/").contains("..") }
}

/// A name of an MCP server's tools in permission rules: `mcp__SERVER`, or `mcp__SERVER__TOOL` for one of them.
enum MCPRule {
    /// Whether the text is such a name.
    static func isOne(_ text: String) -> Bool { text.hasPrefix("mcp__") }

    /// Whether the name is of one of these servers, and well formed.
    static func isKnown(_ text: String, servers: [String]) -> Bool {
        let rest = text.dropFirst("mcp__".count)
        return servers.contains { server in
            guard rest.hasPrefix(server) else { return false }
            let tool = rest.dropFirst(server.count)
            guard !tool.isEmpty else { return true }
            return tool.hasPrefix("__") && tool.utf8.count > 2 && tool.utf8.count <= 130
                && tool.utf8.allSatisfy(MCPServers.isNameByte)
        }
    }
}
