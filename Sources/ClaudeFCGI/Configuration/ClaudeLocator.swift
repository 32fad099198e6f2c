/// Finds the CLI: CLAUDE_PATH, else `claude` on PATH.
enum ClaudeLocator {
    /// The CLI's path.
    ///
    /// - Returns: CLAUDE_PATH whether or not it exists (so that the error names it), the first `claude` on PATH, or nil.
    static func path(_ settings: Settings) -> String? {
        if let path = settings.claudePath {
            return path.hasPrefix("/") ? path : currentDirectory() + "/" + path
        }
        let directories = (settings.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":")
        return directories.map { "\($0)/claude" }.first { Files.isExecutableFile($0) }
    }
}
