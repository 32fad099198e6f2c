import Admission
import CLinux
import Dialects
import Glibc

/// A setting that can't be used: which one, why, and what to write instead.
struct SettingsError: Error, Equatable, CustomStringConvertible {
    let variable: String
    let problem: String

    var description: String { "\(variable): \(problem)" }
}

/// Everything that the environment (and `.env` behind it) sets.
struct Settings: Sendable {
    /// How much each request may log.
    enum LogFormat: String, Sendable, CaseIterable { case auto, json, text }
    enum LogLevel: String, Sendable, CaseIterable { case debug, info, warn, error }

    /// Threads beyond those that run or wait, over all responders: for `/health`, `/v1/models` and for saying no.
    static let spareThreads = 16
    /// nginx's own limit (deploy/nginx.conf); the responder's is the same so that neither is a surprise.
    static let bodyLimitBytes = 32 << 20
    /// deploy/nginx.conf waits a little longer than this for a responder's next byte.
    static let longestRequest = Duration.seconds(3600)

    let port: Int
    let tlsPort: Int
    let bindAddress: String
    let runDirectory: String
    let stateDirectory: String
    let responders: Int
    let proxyAPIKey: String?
    let keysFile: String?
    let retryMaxAttempts: Int
    let heartbeatAfter: Duration
    let logLevel: LogLevel
    let logFormat: LogFormat
    let requestTimeout: Duration
    let concurrency: Int
    let queueLimit: Int
    let queueTimeout: Duration
    let claudePath: String?
    /// Where `/api/run` may work.
    let allowedDirectories: [String]
    /// Tools, or permission rules of tools, that callers of `/api/run` may name; nil for all.
    let allowedTools: [String]?
    /// The CLI's permission modes that callers of `/api/run` may name.
    let permissionModes: [String]
    /// Whether callers of `/api/run` may have the CLI start or reach MCP servers.
    let allowsMCPServers: Bool
    /// Claude Code's own tools in the chat APIs; empty for none, which is how they are safe to expose.
    let chatTools: [ToolRule]
    /// Where chat runs with tools work; nil for an empty directory.
    let chatToolsDirectory: String?
    /// Whether chat runs have Claude Code's own system prompt, the caller's behind it.
    let chatUsesClaudeCodePrompt: Bool
    /// CLI processes that are started before there is a request, over all responders.
    let spares: Int
    /// How long one waits before another takes its place.
    let spareTTL: Duration
    /// Conversations whose process is kept after an answer, over all responders.
    let liveMax: Int
    /// How long one is kept.
    let liveTTL: Duration
    /// With less memory left than this no process is kept that only waits.
    let memoryHeadroomBytes: Int
    /// Whether a session is named after the first words of its first prompt.
    let keepsSessionTitles: Bool
    let defaultModel: String?
    /// Names of models of the operator's own, and what stands behind them.
    let modelAliases: [(name: String, model: String)]
    /// The most answers to one request.
    let maxChoices: Int
    /// How long a stored conversation is kept from its last use on.
    let sessionTTL: Duration
    /// How many stored conversations a key may have.
    let maxSessionsPerKey: Int
    /// Between two removals of what has expired.
    let sessionCleanupInterval: Duration
    /// The whole environment, `.env` behind it: what the CLI's own environment is picked from.
    let environment: [String: String]

    /// Threads of one responder: all responders together have one for each request that runs or waits, and spares.
    var threadsPerResponder: Int {
        let needed = concurrency + queueLimit + Self.spareThreads
        return (needed + responders - 1) / responders + followersPerResponder
    }

    /// Where runs keep their temporary files, one directory each.
    var temporaryDirectory: String { runDirectory + "/tmp" }

    /// The admission segment: on tmpfs, so that nothing of it is ever written to a disk.
    var segmentPath: String {
        let shared = "/dev/shm"
        if unsafe clinux_is_tmpfs(runDirectory) != 0 || clinux_is_tmpfs(shared) == 0 {
            return runDirectory + "/admission"
        }
        // FNV-1a: one name a RUN_DIR.
        let hash = runDirectory.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        return "\(shared)/claude-fcgi-\(geteuid())-\(String(hash, radix: 36))"
    }

    /// The empty directory that chat runs stand in.
    ///
    /// Its path reaches the model, so its name says nothing.
    var chatDirectory: String { runDirectory + "/w" }

    /// Where runs may work unless ALLOWED_DIRECTORIES says otherwise.
    var workspaceDirectory: String { stateDirectory + "/workspace" }

    /// Where runs that keep no session have their directories, one each.
    var freshDirectory: String { stateDirectory + "/runs" }

    /// Where sessions that name no directory have theirs, one each.
    var sessionsDirectory: String { stateDirectory + "/sessions" }

    /// What the CLI keeps of sessions.
    var transcriptsDirectory: String { stateDirectory + "/transcripts" }

    /// The events of background runs.
    var backgroundDirectory: String { stateDirectory + "/background" }

    /// How many clients of one responder may follow background runs: those hold a thread each without a place.
    var followersPerResponder: Int { (concurrency + Self.spareThreads + responders - 1) / responders }

    init(environment: [String: String]) throws(SettingsError) {
        let reader = SettingsReader(environment: environment)
        port = try reader.integer("PORT", default: 6789, in: 1...65535)
        tlsPort = try reader.integer("TLS_PORT", default: 6790, in: 1...65535)
        if port == tlsPort {
            throw SettingsError(
                variable: "TLS_PORT",
                problem: "is the same as PORT (\(port)); give HTTPS a port "
                    + "of its own")
        }
        bindAddress = try reader.address("BIND_ADDRESS", default: "127.0.0.1")
        runDirectory = reader.path("RUN_DIR", default: ".run")
        stateDirectory = reader.path("STATE_DIR", default: runDirectory)
        responders = try reader.integer("RESPONDERS", default: 2, in: 1...64)
        proxyAPIKey = try reader.key("PROXY_API_KEY")
        keysFile = reader.text("PROXY_API_KEYS_FILE")
        retryMaxAttempts = try reader.integer("RETRY_MAX_ATTEMPTS", default: 3, in: 1...10)
        heartbeatAfter = try reader.milliseconds("HEARTBEAT_AFTER_MS", default: 10_000, atLeast: 100)
        logLevel = try reader.choice("LOG_LEVEL", default: .info)
        logFormat = try reader.choice("LOG_FORMAT", default: .auto)
        requestTimeout = try reader.milliseconds("REQUEST_TIMEOUT_MS", default: 300_000, atLeast: 1000)
        concurrency = try reader.integer("WORKER_CONCURRENCY", default: 2, in: 1...1000)
        queueLimit = try reader.integer("MAX_QUEUE_SIZE", default: 100, in: 0...10_000)
        queueTimeout = try reader.milliseconds("QUEUE_TIMEOUT_MS", default: 60_000, atLeast: 1)
        if requestTimeout + queueTimeout > Self.longestRequest {
            throw SettingsError(
                variable: "REQUEST_TIMEOUT_MS",
                problem: "together with QUEUE_TIMEOUT_MS it must not exceed 3600000 (an hour), for which "
                    + "deploy/nginx.conf waits")
        }
        claudePath = reader.text("CLAUDE_PATH")
        let roots = reader.text("ALLOWED_DIRECTORIES")?.split(separator: ":").map { String($0) } ?? []
        for root in roots where !root.hasPrefix("/") {
            throw SettingsError(
                variable: "ALLOWED_DIRECTORIES",
                problem: "`\(root)` is not an absolute path; write "
                    + "/a/path:/another/path")
        }
        allowedDirectories = roots.isEmpty ? [stateDirectory + "/workspace"] : roots
        allowedTools = try reader.rules("ALLOWED_TOOLS")
        permissionModes = try reader.words(
            "PERMISSION_MODES", default: DirectPolicy.defaultPermissionModes, of: DirectPolicy.knownPermissionModes)
        allowsMCPServers = try reader.flag("ALLOW_MCP_SERVERS", default: false)
        chatTools = (try reader.rules("CHAT_TOOLS") ?? []).compactMap { ToolRule($0) }
        chatToolsDirectory = try reader.directory("CHAT_DIRECTORY")
        chatUsesClaudeCodePrompt = try reader.words("CHAT_PRESET", default: [], of: ["claude_code"]) != []
        keepsSessionTitles = try reader.flag("SESSION_TITLES", default: true)
        defaultModel = reader.text("DEFAULT_MODEL")
        modelAliases = try reader.pairs("MODEL_ALIASES")
        sessionTTL = try reader.milliseconds("SESSION_TTL_MS", default: 3_600_000, in: 1000...31_536_000_000)
        maxSessionsPerKey = try reader.integer("MAX_SESSIONS_PER_KEY", default: 1000, in: 1...1_000_000)
        sessionCleanupInterval = try reader.milliseconds(
            "SESSION_CLEANUP_INTERVAL_MS", default: 60_000, in: 1000...86_400_000)
        spares = try reader.integer("SPARES", default: concurrency, in: 0...64)
        spareTTL = .seconds(try reader.integer("SPARE_TTL", default: 3600, in: 10...86_400))
        liveMax = try reader.integer("LIVE_MAX", default: 2 * concurrency, in: 0...AdmissionGate.liveCapacity)
        liveTTL = .seconds(try reader.integer("LIVE_TTL", default: 120, in: 1...3600))
        memoryHeadroomBytes = try reader.integer("MEMORY_HEADROOM", default: 512, in: 0...1_048_576) << 20
        maxChoices = try reader.integer("MAX_CHOICES", default: 8, in: 1...128)
        self.environment = environment
    }
}

/// Reads single settings.
///
/// An empty value counts as none, as in `.env` templates.
private struct SettingsReader {
    let environment: [String: String]

    func text(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }

    func integer(_ name: String, default fallback: Int, in range: ClosedRange<Int>) throws(SettingsError) -> Int {
        guard let text = text(name) else { return fallback }
        guard let value = Int(text), range.contains(value) else {
            throw SettingsError(
                variable: name,
                problem: "must be a whole number from \(range.lowerBound) to \(range.upperBound), not `\(text)`; "
                    + "the default is \(fallback)")
        }
        return value
    }

    func milliseconds(_ name: String, default fallback: Int, atLeast least: Int) throws(SettingsError) -> Duration {
        .milliseconds(try integer(name, default: fallback, in: least...3_600_000))
    }

    func milliseconds(
        _ name: String, default fallback: Int, in range: ClosedRange<Int>
    ) throws(SettingsError) -> Duration {
        .milliseconds(try integer(name, default: fallback, in: range))
    }

    func choice<Choice: RawRepresentable & CaseIterable>(
        _ name: String, default fallback: Choice
    ) throws(SettingsError) -> Choice where Choice.RawValue == String {
        guard let text = text(name) else { return fallback }
        guard let value = Choice(rawValue: text) else {
            let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw SettingsError(variable: name, problem: "must be one of \(names), not `\(text)`")
        }
        return value
    }

    /// `true` or `false`.
    func flag(_ name: String, default fallback: Bool) throws(SettingsError) -> Bool {
        switch text(name)?.lowercased() {
        case nil: return fallback
        case "true", "1", "yes", "on": return true
        case "false", "0", "no", "off": return false
        case .some(let text): throw SettingsError(variable: name, problem: "must be true or false, not `\(text)`")
        }
    }

    /// `word,word`, each of a closed list.
    func words(_ name: String, default fallback: [String], of known: [String]) throws(SettingsError) -> [String] {
        guard let text = text(name) else { return fallback }
        let words = text.split(separator: ",").map { String($0).trimmed }.filter { !$0.isEmpty }
        for word in words where !known.contains(word) {
            throw SettingsError(
                variable: name,
                problem: "`\(word.prefix(60))` is not one of \(known.joined(separator: ", ")); commas go between them")
        }
        return words
    }

    /// `Tool,Tool(specifier)`: a comma within brackets belongs to the rule.
    func rules(_ name: String) throws(SettingsError) -> [String]? {
        guard let text = text(name) else { return nil }
        var rules = [""]
        var depth = 0
        for character in text {
            if character == "(" { depth += 1 }
            if character == ")" { depth -= 1 }
            if character == ",", depth == 0 { rules.append("") } else { rules[rules.count - 1].append(character) }
        }
        let trimmed = rules.map(\.trimmed).filter { !$0.isEmpty }
        for rule in trimmed where ToolRule(rule) == nil && !rule.hasPrefix("mcp__") {
            throw SettingsError(
                variable: name,
                problem:
                    "`\(rule.prefix(60))` is no tool: there are \(DirectRequest.tools.joined(separator: ", ")), and "
                    + "mcp__SERVER for those of an MCP server")
        }
        return trimmed
    }

    /// An absolute path; nil where there is none.
    func directory(_ name: String) throws(SettingsError) -> String? {
        guard let path = text(name) else { return nil }
        guard path.hasPrefix("/") else {
            throw SettingsError(variable: name, problem: "`\(path)` is not an absolute path")
        }
        return path
    }

    /// `name=value,name=value`.
    func pairs(_ name: String) throws(SettingsError) -> [(name: String, model: String)] {
        var pairs: [(name: String, model: String)] = []
        for word in (text(name) ?? "").split(separator: ",") {
            let parts = word.split(separator: "=", omittingEmptySubsequences: false).map { String($0).trimmed }
            guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }) else {
                throw SettingsError(
                    variable: name,
                    problem: "`\(word.prefix(60))` is not name=model; write gpt-4o=sonnet,gpt-4o-mini=haiku")
            }
            pairs.append((parts[0], parts[1]))
        }
        return pairs
    }

    func path(_ name: String, default fallback: String) -> String {
        let path = text(name) ?? fallback
        return path.hasPrefix("/") ? path : currentDirectory() + "/" + path
    }

    /// A numeric address or `*`; it goes into nginx's configuration.
    func address(_ name: String, default fallback: String) throws(SettingsError) -> String {
        let value = text(name) ?? fallback
        guard value == "*" || value.utf8.allSatisfy({ "0123456789abcdefABCDEF.:[]".utf8.contains($0) }) else {
            throw SettingsError(
                variable: name,
                problem: "must be a numeric address such as 127.0.0.1, 0.0.0.0 or "
                    + "[::], or `*`")
        }
        return value
    }

    /// From the variable, or from the file of that name in lower case that systemd's LoadCredential= provides.
    func key(_ name: String) throws(SettingsError) -> String? {
        var key = text(name)
        if key == nil, let directory = text("CREDENTIALS_DIRECTORY") {
            key = try? Files.read("\(directory)/\(name.lowercased())", limitBytes: 4096).trimmed
        }
        guard let key, !key.isEmpty else { return nil }
        guard key.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw SettingsError(
                variable: name,
                problem: "has white space or characters beyond ASCII, which no HTTP client can "
                    + "send in a header")
        }
        return key
    }
}

extension String {
    /// Without white space at both ends.
    var trimmed: String {
        var text = Substring(self)
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text)
    }
}
