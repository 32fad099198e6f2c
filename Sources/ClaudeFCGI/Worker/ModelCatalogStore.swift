import Dialects
import Glibc
import Logging
import ProcessControl
import Synchronization

/// Knows the installed CLI's models, and asks the CLI anew when its file changes.
///
/// What the CLI said is kept in RUN_DIR for all responders, under the identity of its file: a responder that starts again
/// asks nobody.
final class ModelCatalogStore: Sendable {
    private struct Known {
        var identity: Files.Identity
        var catalog: ModelCatalog
    }

    /// Starting the CLI takes under a second; a machine under load gets time.
    private static let patience = Duration.seconds(30)

    private let launcher: ClaudeLauncher
    private let logger: Logger
    private let known = Mutex<Known?>(nil)
    /// Held while the CLI is asked, so that one thread asks and the others wait for what it learns.
    private let asking = Mutex<Void>(())

    init(launcher: ClaudeLauncher, logger: Logger) {
        self.launcher = launcher
        self.logger = logger
    }

    /// The catalog of the CLI that is installed now.
    ///
    /// - Throws: ``APIError`` cli_not_found or cli_error.
    @available(*, noasync, message: "blocks while the CLI is asked")
    func catalog() throws(APIError) -> ModelCatalog {
        guard let path = ClaudeLocator.path(launcher.settings), let identity = Files.identity(path) else {
            throw APIError(
                .cliNotFound,
                "The Claude Code CLI is not installed where the service looks for it. Its operator can install it "
                    + "or set CLAUDE_PATH; `claude-fcgi check` says more.",
                cause: "no file at \(ClaudeLocator.path(launcher.settings) ?? "CLAUDE_PATH or `claude` on PATH")")
        }
        if let catalog = current(identity) { return catalog }
        let result: Result<ModelCatalog, APIError> = asking.withLock { _ in
            if let catalog = current(identity) { return .success(catalog) }
            if let catalog = readCache(identity) { return .success(keep(identity, catalog)) }
            do throws(APIError) {
                let response = try askCLI()
                writeCache(identity, response)
                return .success(keep(identity, ModelCatalog(initializeResponse: response)))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// The catalog if it is known without asking; else what every CLI of this service takes.
    func catalogWithoutWaiting() -> ModelCatalog {
        known.withLock { $0?.catalog }
            ?? ModelCatalog(initializeResponse: [:]).adding(launcher.settings.modelAliases)
    }

    private func current(_ identity: Files.Identity) -> ModelCatalog? {
        known.withLock { $0?.identity == identity ? $0?.catalog : nil }
    }

    private func keep(_ identity: Files.Identity, _ catalog: ModelCatalog) -> ModelCatalog {
        let catalog = catalog.adding(launcher.settings.modelAliases)
        known.withLock { $0 = Known(identity: identity, catalog: catalog) }
        return catalog
    }

    private var cachePath: String { launcher.settings.runDirectory + "/models.json" }

    private func readCache(_ identity: Files.Identity) -> ModelCatalog? {
        guard let text = try? Files.read(cachePath, limitBytes: 8 << 20),
            let json = try? JSONParser.parse(Array(text.utf8)),
            json["cli"]?.stringValue == identity.description, let response = json["response"]
        else { return nil }
        return ModelCatalog(initializeResponse: response)
    }

    private func writeCache(_ identity: Files.Identity, _ response: JSONValue) {
        let kept: JSONValue = [
            "models": response["models"] ?? nil, "claude_code_version": response["claude_code_version"] ?? nil,
        ]
        do {
            try Files.replace(
                cachePath, with: JSONWriter.bytes(["cli": .string(identity.description), "response": kept]))
        } catch {
            logger.debug("model cache not written", metadata: [LogKey.reason: "\(error)"])
        }
    }

    /// Starts a CLI, reads its answer to `initialize` and ends it.
    private func askCLI() throws(APIError) -> JSONValue {
        var process = try launcher.start(LaunchPlan(RunRequest(turns: []), roots: []))
        let remains = process.remains
        defer { remains.remove() }
        let answer = Self.initializeAnswer(&process.child)
        _ = process.child.terminate(patience: .zero, grace: .seconds(1))
        guard let answer else {
            throw APIError(
                .cli, "The Claude Code CLI does not answer. Run `claude-fcgi check` on the server.",
                cause: "no answer to initialize")
        }
        return answer
    }

    private static func initializeAnswer(_ child: inout ChildProcess) -> JSONValue? {
        var conversation = ClaudeConversation(RunRequest(turns: []), model: nil)
        guard case .write(let line)? = conversation.start().first else { return nil }
        _ = unsafe write(child.input, line, line.count)
        let deadline = ContinuousClock.now + patience
        var lines = LineBuffer(limitBytes: 16 << 20)
        while true {
            var entry = pollfd(fd: child.output, events: Int16(POLLIN), revents: 0)
            let left = deadline - .now
            guard left > .zero, unsafe poll(&entry, 1, left.pollMilliseconds) > 0 else { return nil }
            guard let count = try? lines.read(from: child.output), count > 0 else { return nil }
            while let range = lines.nextLine() {
                guard let json = try? JSONParser.parse(lines.bytes, in: range) else { return nil }
                if json["type"]?.stringValue == "control_response" { return json["response"]?["response"] }
            }
        }
    }
}
