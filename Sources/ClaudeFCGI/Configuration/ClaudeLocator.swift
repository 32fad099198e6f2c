/// Finds the CLI: CLAUDE_PATH, else `claude` on PATH, else the one that `make run` has fetched.
enum ClaudeLocator {
    /// Where Scripts/claude-cli puts it: in the checkout that this program was built in, and is run from.
    ///
    /// Not in the working directory: under systemd that is the service's own, which the tools of a run can write in.
    private static let fetched: String? = {
        guard let program = Files.resolved("/proc/self/exe"), let build = program.firstRange(of: "/.build/") else {
            return nil
        }
        return program[..<build.lowerBound] + "/.claude-cli/claude"
    }()

    /// The CLI's path.
    ///
    /// - Returns: CLAUDE_PATH whether or not it exists (so that the error names it), else the first that is there, or nil.
    static func path(_ settings: Settings) -> String? {
        if let path = settings.claudePath {
            return path.hasPrefix("/") ? path : currentDirectory() + "/" + path
        }
        let directories = (settings.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":")
        let paths = directories.map { "\($0)/claude" } + [fetched].compactMap(\.self)
        return paths.first { Files.isExecutableFile($0) }
    }
}
