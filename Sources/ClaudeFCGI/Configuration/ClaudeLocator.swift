/// Finds the CLI: CLAUDE_PATH, else `claude` on PATH, else the one that `make run` has fetched.
enum ClaudeLocator {
    /// Where Scripts/claude-cli puts it, below the working directory, which is also where `.env` is looked for.
    private static let fetched = ".claude-cli/claude"

    /// The CLI's path.
    ///
    /// - Returns: CLAUDE_PATH whether or not it exists (so that the error names it), else the first that is there, or nil.
    static func path(_ settings: Settings) -> String? {
        if let path = settings.claudePath {
            return path.hasPrefix("/") ? path : currentDirectory() + "/" + path
        }
        let directories = (settings.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":")
        let paths = directories.map { "\($0)/claude" } + [currentDirectory() + "/" + fetched]
        return paths.first { Files.isExecutableFile($0) }
    }
}
