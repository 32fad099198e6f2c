import ArgumentParser

/// `claude-fcgi settings`: what the scripts around this program need to know of its settings.
struct SettingsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "settings", abstract: "Print the settings in force, without secrets.")

    @Flag(help: "As NAME='value' lines that a shell can eval.")
    var shell = false

    func run() throws {
        let settings = try Settings(environment: try DotEnv.environment())
        let login =
            switch ClaudeEnvironment(service: settings.environment).login {
            case .variable: "env"
            case .stored: "stored"
            case .none: "none"
            }
        let values: [(String, String)] = [
            ("PORT", "\(settings.port)"), ("TLS_PORT", "\(settings.tlsPort)"), ("BIND_ADDRESS", settings.bindAddress),
            ("RUN_DIR", settings.runDirectory), ("ADMISSION_SEGMENT", settings.segmentPath),
            ("RESPONDERS", "\(settings.responders)"),
            ("PROXY_API_KEY_SET", settings.proxyAPIKey == nil && settings.keysFile == nil ? "no" : "yes"),
            ("CLAUDE_PATH", ClaudeLocator.path(settings) ?? ""), ("LOGIN", login),
            ("LOG_LEVEL", settings.logLevel.rawValue), ("LOG_FORMAT", settings.logFormat.rawValue),
            ("REQUEST_TIMEOUT_MS", "\(Int(settings.requestTimeout.milliseconds))"),
            ("QUEUE_TIMEOUT_MS", "\(Int(settings.queueTimeout.milliseconds))"),
            ("WORKER_CONCURRENCY", "\(settings.concurrency)"), ("MAX_QUEUE_SIZE", "\(settings.queueLimit)"),
            ("ALLOWED_DIRECTORIES", settings.allowedDirectories.joined(separator: ":")),
            ("ALLOWED_TOOLS", settings.allowedTools?.joined(separator: ",") ?? ""),
            ("PERMISSION_MODES", settings.permissionModes.joined(separator: ",")),
            ("ALLOW_MCP_SERVERS", "\(settings.allowsMCPServers)"),
            ("CHAT_TOOLS", settings.chatTools.map(\.text).joined(separator: ",")),
            ("CHAT_DIRECTORY", settings.chatToolsDirectory ?? ""),
            ("CHAT_PRESET", settings.chatUsesClaudeCodePrompt ? "claude_code" : ""),
            ("SPARES", "\(settings.spares)"), ("SPARE_TTL", "\(settings.spareTTL.components.seconds)"),
            ("LIVE_MAX", "\(settings.liveMax)"), ("LIVE_TTL", "\(settings.liveTTL.components.seconds)"),
            ("MEMORY_HEADROOM", "\(settings.memoryHeadroomBytes >> 20)"),
            ("SESSION_TITLES", "\(settings.keepsSessionTitles)"),
            ("DEFAULT_MODEL", settings.defaultModel ?? ""),
            ("MODEL_ALIASES", settings.modelAliases.map { "\($0.name)=\($0.model)" }.joined(separator: ",")),
            ("MAX_CHOICES", "\(settings.maxChoices)"),
            ("SESSION_TTL_MS", "\(Int(settings.sessionTTL.milliseconds))"),
            ("MAX_SESSIONS_PER_KEY", "\(settings.maxSessionsPerKey)"),
            ("SESSION_CLEANUP_INTERVAL_MS", "\(Int(settings.sessionCleanupInterval.milliseconds))"),
        ]
        for (name, value) in values {
            print(shell ? "\(name)='\(value.replacing("'", with: "'\\''"))'" : "\(name)=\(value)")
        }
    }
}
