import ArgumentParser

/// The program's command line.
@main
struct ClaudeFCGICommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "claude-fcgi",
        abstract: "An HTTP front for the Claude Code CLI, as a FastCGI responder behind nginx.",
        discussion: "Settings come from the environment, and from `.env` in the current directory for what the "
            + "environment leaves open.",
        version: Version.text,
        subcommands: [
            RespondCommand.self, CheckCommand.self, StatusCommand.self, SessionsCommand.self, KeysCommand.self,
            SettingsCommand.self,
            VersionCommand.self,
        ])
}

/// This program's version.
enum Version {
    static let text = "0.1.0"
}

/// `claude-fcgi version`.
struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Print the versions of this program and of the Claude Code CLI it uses.")

    func run() throws {
        print("claude-fcgi \(Version.text)")
        let settings = try Settings(environment: try DotEnv.environment())
        guard let path = ClaudeLocator.path(settings) else {
            print("claude: not found (CLAUDE_PATH is not set and no `claude` is on PATH)")
            return
        }
        print("claude \(ClaudeProbe.version(path)?.description ?? "of unknown version") at \(path)")
    }
}
