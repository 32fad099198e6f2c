/// The environment of a CLI process: built from a list, never inherited whole, because what is in it reaches the CLI's tools.
struct ClaudeEnvironment: Sendable {
    /// The variable that marks a run's processes, so that those which left the CLI's process group are found at its end.
    static let runMarker = "CLAUDE_FCGI_RUN"

    private static let names: Set<String> = [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy",
        "no_proxy", "all_proxy", "API_TIMEOUT_MS", "CLOUD_ML_REGION", "GOOGLE_APPLICATION_CREDENTIALS",
        "GCLOUD_PROJECT",
        "MAX_THINKING_TOKENS", "IS_SANDBOX",
    ]
    private static let prefixes = [
        "ANTHROPIC_", "CLAUDE_", "AWS_", "AZURE_", "GOOGLE_CLOUD_", "VERTEX_", "BEDROCK_", "LC_", "BUN_",
    ]

    /// For the runtime of a CLI without tools, where the operator has not set it.
    ///
    /// The runtime's own timer collects garbage whenever the process is idle, throws away what it has compiled, and begins in
    /// the middle of the next turn. Without it a spare costs a third less CPU and a turn in a live process takes a tenth less
    /// time, for some 15 MB a process (2.1.332); garbage is still collected as it comes up. Tools could be programs of the
    /// same runtime, and get nothing.
    private static let runtime = [("BUN_GC_TIMER_DISABLE", "1")]

    /// For the runtime of a spare, where they have been tried with this CLI's file: it ends when it is given an option that it
    /// does not know, and its makers may drop any.
    ///
    /// Without the second of its compilers a turn in a waiting process takes another tenth less time, and less CPU; what it
    /// would speed up are answers of thousands of deltas a second.
    private static let tuning = [("BUN_JSC_useDFGJIT", "0")]

    /// What a CLI session sets for its children.
    ///
    /// A service started from inside one would otherwise run nested sessions; the rest is this service's own.
    private static let excluded: Set<String> = [
        "CLAUDE_PATH", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT", "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_MESSAGING_SOCKET", "CLAUDE_CODE_MESSAGING_TOKEN",
        "CLAUDE_CODE_CHILD_NOTES_DIR", "CLAUDE_CODE_SESSION_ATTENDED", "CLAUDE_CODE_EXECPATH", "CLAUDE_PID",
        "CLAUDE_EFFORT",
    ]

    /// What a CLI gets of the service's environment, and what is set for every one.
    let inherited: [String: String]

    /// From the service's own environment.
    init(service environment: [String: String]) {
        var picked = environment.filter { name, _ in
            !Self.excluded.contains(name) && !name.hasPrefix("CLAUDE_FCGI_")
                && (Self.names.contains(name) || Self.prefixes.contains { name.hasPrefix($0) })
        }
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"),
            // Without it the CLI asks a second time, unstreamed, when a stream breaks off: the caller would wait for all of it.
            ("CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK", "1"),
            // With it the model is offered a placeholder among its tools (seen with CLI 2.1.330).
            ("ENABLE_TOOL_SEARCH", "false"),
            // The model sees the caller's tools by their own names.
            ("CLAUDE_AGENT_SDK_MCP_NO_PREFIX", "1"),
        ] where picked[name] == nil {
            picked[name] = value
        }
        for name in [
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER",
            "DISABLE_ERROR_REPORTING",
        ] {
            picked[name] = "1"
        }
        inherited = picked
    }

    /// What every CLI has under this name; nil for nothing.
    func value(_ name: String) -> String? { inherited[name] }

    /// One run's environment, as `NAME=value`.
    ///
    /// - Parameters:
    ///   - temporaryDirectory: The run's own; the CLI leaves sockets and probes there.
    ///   - marker: The run's id.
    ///   - retries: How often the CLI may ask its upstream again: what is left of the request's attempts.
    ///   - isTuned: Whether it is a spare whose runtime is known to take options.
    ///   - hasTools: False, where the CLI has none of its own, adds the second lock against `@path` in a caller's text.
    func entries(temporaryDirectory: String, marker: String, retries: Int, hasTools: Bool, isTuned: Bool = false)
        -> [String]
    {
        var all = inherited
        all["TMPDIR"] = temporaryDirectory
        all["CLAUDE_CODE_TMPDIR"] = temporaryDirectory
        all[Self.runMarker] = marker
        all["CLAUDE_CODE_MAX_RETRIES"] = String(retries)
        if !hasTools {
            all["CLAUDE_CODE_DISABLE_ATTACHMENTS"] = "1"
            all.merge(Self.runtime) { own, _ in own }
            if isTuned { all.merge(Self.tuning) { own, _ in own } }
            // A file for each process with tools of the caller's would pile up there (seen with CLI 2.1.332). Where the CLI has
            // tools of its own, they have their caches in the same place.
            all["XDG_CACHE_HOME"] = temporaryDirectory
        }
        return all.map { "\($0.key)=\($0.value)" }
    }

    /// Where the CLI keeps its own state.
    var configurationDirectory: String? {
        inherited["CLAUDE_CONFIG_DIR"] ?? inherited["HOME"].map { $0 + "/.claude" }
    }

    /// How the CLI will log in.
    var login: Login {
        let variables = [
            "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY",
        ]
        if let name = variables.first(where: { !(inherited[$0] ?? "").isEmpty }) { return .variable(name) }
        if let directory = configurationDirectory, Files.identity(directory + "/.credentials.json") != nil {
            return .stored
        }
        return .none
    }

    enum Login: Equatable {
        case variable(String)
        case stored
        case none
    }
}
