import Admission
import Dialects
import Glibc
import ProcessControl

/// A CLI process and what it will leave behind.
struct ClaudeProcess: ~Copyable {
    let id: RunID
    var child: ChildProcess
    /// To be removed when the process has ended.
    let remains: RunRemains
}

/// What a run leaves behind, and its removal.
struct RunRemains: Sendable {
    let marker: String
    let directories: [String]
    let hasTools: Bool
    /// Where the CLI keeps notes of directories and sessions; nil when it is unknown.
    let configurationDirectory: String?

    /// Ends processes that left the CLI's group and removes the run's directories.
    ///
    /// - Parameter sessionID: The CLI session's id, whose notes go as well.
    func remove(sessionID: String = "") {
        // The CLI's name for a directory is made of its real path, which is known only while it exists.
        let realDirectories = directories.dropFirst().map { Files.resolved($0) ?? $0 }
        if hasTools { ProcessSweep.killAll(withEnvironment: "\(ClaudeEnvironment.runMarker)=\(marker)") }
        for directory in directories { Files.remove(directory) }
        guard hasTools, let configurationDirectory else { return }
        // The CLI makes both even where it keeps no session (seen with 2.1.330); they would pile up.
        if UUIDText.isUUID(sessionID) { Files.remove("\(configurationDirectory)/session-env/\(sessionID)") }
        for directory in realDirectories {
            let name = String(directory.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" })
            Files.remove("\(configurationDirectory)/projects/\(name)")
        }
    }
}

/// Starts CLI processes: a launch profile to a command line, with nothing of a caller's in it.
struct ClaudeLauncher: Sendable {
    /// Arguments of every profile.
    ///
    /// No settings, MCP servers or stored sessions of the host have a part in a caller's request.
    private static let arguments = [
        "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
        "--include-partial-messages", "--setting-sources", "", "--strict-mcp-config", "--no-session-persistence",
    ]

    let settings: Settings
    let environment: ClaudeEnvironment

    init(settings: Settings) {
        self.settings = settings
        environment = ClaudeEnvironment(service: settings.environment)
    }

    /// Makes the directories that runs need, and removes what runs of dead responders left.
    func prepareDirectories() throws(FileError) {
        for directory in [settings.temporaryDirectory, settings.chatDirectory, settings.workspaceDirectory] {
            try Files.makeDirectory(directory)
        }
        for directory in [settings.temporaryDirectory, settings.workspaceDirectory] {
            for name in Files.names(in: directory) {
                guard let pid = Int32(name.prefix { $0 != "-" }), !isAlive(pid) else { continue }
                remains(of: name).remove()
            }
        }
    }

    /// Ends what is left of a dead responder's run.
    func end(_ orphan: OrphanedRun) {
        // A number alone could by now be a stranger's; with its start time it is the process that was recorded.
        if orphan.processGroup > 1, ProcessIdentity.startTime(of: orphan.processGroup) == orphan.processStartTime {
            kill(-orphan.processGroup, SIGKILL)
        }
        let marker = RunID(pid: orphan.ownerPID, seconds: orphan.runSeconds, count: orphan.runCount).text
        remains(of: marker).remove()
    }

    private func remains(of marker: String) -> RunRemains {
        RunRemains(
            marker: marker,
            directories: ["\(settings.temporaryDirectory)/\(marker)", "\(settings.workspaceDirectory)/\(marker)"],
            hasTools: true, configurationDirectory: environment.configurationDirectory)
    }

    /// Starts the CLI for a request.
    ///
    /// - Parameter retries: How often the CLI may ask its upstream again by itself.
    /// - Throws: ``APIError``: cli_not_found, internal_error, forbidden or invalid_request for a directory.
    func start(_ request: RunRequest, retries: Int = 0) throws(APIError) -> ClaudeProcess {
        guard let executable = ClaudeLocator.path(settings) else { throw Self.notFound(nil) }
        let id = RunID.next()
        let marker = id.text
        var directories = ["\(settings.temporaryDirectory)/\(marker)"]
        let arguments = Self.arguments + request.launchArguments
        let directory: String
        let hasTools: Bool
        switch request.profile {
        case .chat:
            directory = settings.chatDirectory
            hasTools = false
        case .agent(let agent):
            hasTools = !agent.tools.isEmpty
            if let wanted = agent.workingDirectory {
                directory = try WorkingDirectory.resolve(wanted, roots: settings.allowedDirectories)
            } else {
                directory = "\(settings.workspaceDirectory)/\(marker)"
                directories.append(directory)
            }
        }
        let remains = RunRemains(
            marker: marker, directories: directories, hasTools: hasTools,
            configurationDirectory: environment.configurationDirectory)
        do throws(FileError) {
            for directory in directories { try Files.makeDirectory(directory) }
        } catch {
            remains.remove()
            throw APIError(
                .internal,
                "The service can't make a directory for the run. Run `claude-fcgi check` on "
                    + "the server.", cause: "\(error)")
        }
        let command = ChildCommand(
            executable: executable, arguments: arguments,
            environment: environment.entries(
                temporaryDirectory: directories[0], marker: marker, retries: retries, readsAttachments: hasTools),
            directory: directory)
        do throws(SpawnError) {
            return ClaudeProcess(id: id, child: try ChildProcess(command), remains: remains)
        } catch {
            remains.remove()
            switch error {
            case .notExecutable: throw Self.notFound("\(error)")
            case .directory:
                throw APIError(
                    .internal,
                    "The run's directory can't be entered. Run `claude-fcgi "
                        + "check` on the server.", cause: "\(error)")
            case .resources:
                throw APIError(
                    .unavailable,
                    "The server can't start another process now. Try again "
                        + "later.", retryAfterSeconds: 5, cause: "\(error)")
            }
        }
    }

    private static func notFound(_ cause: String?) -> APIError {
        APIError(
            .cliNotFound,
            "The Claude Code CLI is not installed where the service looks for it. Its operator can install it or "
                + "set CLAUDE_PATH; `claude-fcgi check` says more.",
            cause: cause ?? "CLAUDE_PATH is not set and no `claude` is on PATH")
    }
}
