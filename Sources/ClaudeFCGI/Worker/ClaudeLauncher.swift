import Admission
import Dialects
import Glibc
import ProcessControl
import Synchronization

/// A CLI process and what it will leave behind.
struct ClaudeProcess: ~Copyable {
    let id: RunID
    var child: ChildProcess
    /// Where it stands, without symbolic links.
    let directory: String
    /// What it is told, with the directories as they were found.
    let request: RunRequest
    /// To be removed when the process has ended.
    let remains: RunRemains
}

/// What a run leaves behind, and its removal.
struct RunRemains: Sendable {
    let marker: String
    let directories: [String]
    let hasTools: Bool
    /// Whether the CLI's own record of the conversation stays.
    let keepsRecord: Bool
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
        if !keepsRecord, UUIDText.isUUID(sessionID) {
            Files.remove("\(configurationDirectory)/session-env/\(sessionID)")
        }
        for directory in realDirectories {
            Files.remove("\(configurationDirectory)/projects/\(SessionTranscript.projectName(directory))")
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
        "--include-partial-messages", "--setting-sources", "", "--strict-mcp-config",
    ]

    let settings: Settings
    let environment: ClaudeEnvironment
    private let starts = LaunchCount()

    init(settings: Settings) {
        self.settings = settings
        environment = ClaudeEnvironment(service: settings.environment)
    }

    /// What tells the installed CLI from another; nil where there is none.
    var currentIdentity: Files.Identity? { ClaudeLocator.path(settings).flatMap { Files.identity($0) } }

    /// Makes the directories that runs need, and removes what runs of dead responders left.
    func prepareDirectories() throws(FileError) {
        for directory in [settings.temporaryDirectory, settings.chatDirectory] { try Files.makeDirectory(directory) }
        // Chats need no STATE_DIR; what does says so itself.
        for directory in [settings.workspaceDirectory, settings.freshDirectory] { try? Files.makeDirectory(directory) }
        for directory in [settings.temporaryDirectory, settings.freshDirectory] {
            for name in Files.names(in: directory) {
                guard let pid = Int32(name.prefix { $0 != "-" }), !ProcessIdentity.isAlive(pid) else { continue }
                remains(of: name).remove()
            }
        }
    }

    /// Removes what is left of this responder's processes, and starts none any more; for its end.
    @available(*, noasync, message: "waits for starts under way")
    func removeOwnDirectories() {
        // A spare could be made ready at this moment.
        starts.close()
        for directory in [settings.temporaryDirectory, settings.freshDirectory] {
            for name in Files.names(in: directory) where name.hasPrefix("\(getpid())-") { remains(of: name).remove() }
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
            directories: ["\(settings.temporaryDirectory)/\(marker)", "\(settings.freshDirectory)/\(marker)"],
            hasTools: true, keepsRecord: false, configurationDirectory: environment.configurationDirectory)
    }

    /// Starts the CLI.
    ///
    /// - Throws: ``APIError``: cli_not_found, internal_error, forbidden or invalid_request for a directory.
    func start(_ plan: LaunchPlan) throws(APIError) -> ClaudeProcess {
        guard let executable = ClaudeLocator.path(settings) else { throw Self.notFound(nil) }
        guard starts.enter() else {
            throw APIError(
                .unavailable, "This part of the service is being restarted. Send the request again.",
                retryAfterSeconds: 1)
        }
        defer { starts.leave() }
        let id = plan.id ?? RunID.next()
        let temporary = "\(settings.temporaryDirectory)/\(id.text)"
        var directories = [temporary]
        let place: String
        switch plan.directory {
        case .chat: place = settings.chatDirectory
        case .fresh:
            place = "\(settings.freshDirectory)/\(id.text)"
            directories.append(place)
        case .own(let path), .named(let path, _): place = path
        }
        let hasTools = Self.hasTools(plan.request)
        let remains = RunRemains(
            marker: id.text, directories: directories, hasTools: hasTools, keepsRecord: plan.record != .none,
            configurationDirectory: environment.configurationDirectory)
        do throws(APIError) {
            try makeDirectories(directories + (plan.directory == .own(place) ? [place] : []))
            let directory = try Self.open(place, plan.directory)
            let request = try Self.resolvingDirectories(plan)
            var command = ChildCommand(
                executable: executable, arguments: Self.arguments + Self.arguments(plan),
                environment: environment.entries(
                    temporaryDirectory: temporary, marker: id.text, retries: plan.retries, hasTools: hasTools,
                    isTuned: plan.isTuned),
                directory: place)
            command.directoryDescriptor = directory.descriptor
            return ClaudeProcess(
                id: id, child: try Self.spawn(command), directory: directory.path, request: request, remains: remains)
        } catch {
            remains.remove()
            throw error
        }
    }

    private static func hasTools(_ request: RunRequest) -> Bool {
        switch request.profile {
        case .chat: !request.hostTools.isEmpty
        case .agent(let agent): !agent.tools.isEmpty || !agent.mcpServers.members.isEmpty
        }
    }

    /// What differs between processes: nothing of it is a caller's own words.
    private static func arguments(_ plan: LaunchPlan) -> [String] {
        let record =
            switch plan.record {
            case .none: ["--no-session-persistence"]
            case .new(let id): ["--session-id=\(id)"]
            case .resumed(let path): ["--resume=\(path)"]
            case .forked(let path, let id): ["--resume=\(path)", "--fork-session", "--session-id=\(id)"]
            }
        return plan.request.launchArguments + record
    }

    private func makeDirectories(_ paths: [String]) throws(APIError) {
        do throws(FileError) {
            for path in paths { try Files.makeDirectory(path) }
        } catch {
            throw APIError(
                .internal,
                "The service can't make a directory for the run. Run `claude-fcgi check` on the server.",
                cause: "\(error)")
        }
    }

    /// Opens the run's directory, so that what is looked at is what the process stands in.
    private static func open(_ place: String, _ directory: LaunchPlan.Directory) throws(APIError) -> OpenDirectory {
        switch directory {
        case .named(let path, let roots): return try WorkingDirectory.open(path, roots: roots)
        case .chat, .fresh, .own:
            // A session's tools could have put a link in its place.
            let name = place.lastIndex(of: "/").map { place[$0...] } ?? ""
            guard let found = OpenDirectory(place), let parent = Files.resolved(String(place.dropLast(name.count))),
                found.path == parent + name
            else {
                throw APIError(
                    .internal, "The run's directory can't be entered. Run `claude-fcgi check` on the server.",
                    cause: "\(place) is not a directory of the service's own")
            }
            return found
        }
    }

    /// The request with the further directories as they are behind symbolic links.
    private static func resolvingDirectories(_ plan: LaunchPlan) throws(APIError) -> RunRequest {
        guard case .agent(let agent) = plan.request.profile, !agent.addedDirectories.isEmpty else {
            return plan.request
        }
        var resolved: [String] = []
        for (index, path) in agent.addedDirectories.enumerated() {
            resolved.append(try WorkingDirectory.resolve(path, parameter: "addDirs[\(index)]", roots: plan.roots))
        }
        return try plan.request.resolvingDirectories(resolved)
    }

    private static func spawn(_ command: ChildCommand) throws(APIError) -> ChildProcess {
        do throws(SpawnError) {
            return try ChildProcess(command)
        } catch {
            switch error {
            case .notExecutable: throw notFound("\(error)")
            case .directory:
                throw APIError(
                    .internal, "The run's directory can't be entered. Run `claude-fcgi check` on the server.",
                    cause: "\(error)")
            case .resources:
                throw APIError(
                    .unavailable, "The server can't start another process now. Try again later.", retryAfterSeconds: 5,
                    cause: "\(error)")
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

/// How many processes are being started at this moment: what they make must not come after the last removal.
private final class LaunchCount: Sendable {
    private struct State {
        var count = 0
        var isClosed = false
    }

    private let state = Mutex(State())

    /// A start begins.
    ///
    /// - Returns: False when there may be none any more.
    func enter() -> Bool {
        state.withLock { state in
            if !state.isClosed { state.count += 1 }
            return !state.isClosed
        }
    }

    /// It is over.
    func leave() { state.withLock { $0.count -= 1 } }

    /// Lets none begin, and waits for those that have: each takes milliseconds.
    func close() {
        state.withLock { $0.isClosed = true }
        while state.withLock({ $0.count > 0 }) { usleep(1000) }
    }
}
