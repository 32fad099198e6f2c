import Admission
import ArgumentParser
import CLinux
import Dialects
import FastCGI
import Glibc
import Logging

/// `claude-fcgi respond`: one responder process.
struct RespondCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "respond",
        abstract: "Answer FastCGI requests on descriptor 0, on systemd's socket, or on --socket.",
        discussion: "SIGTERM drains: no new requests are accepted, those under way are finished, then the exit "
            + "status is 0.")

    /// sysexits(3): a configuration error; supervisors are told not to start the responder again.
    private static let configurationError = ExitCode(78)
    /// sysexits(3): a failure that may pass.
    private static let temporaryFailure = ExitCode(75)

    @Option(help: "Bind this path and accept there.")
    var socket: String?

    func run() throws {
        let settings: Settings
        do throws(SettingsError) {
            settings = try Settings(environment: try DotEnv.environment())
        } catch {
            throw refusal("\(error)")
        }
        let keys: KeyRingStore
        do throws(SettingsError) {
            keys = try KeyRingStore(settings)
        } catch {
            throw refusal("\(error)")
        }
        // The tools that callers of /api/run ask for run as this user. Under `make run` the script that ends stray
        // processes knows them by what this would hide.
        if settings.environment["NOTIFY_SOCKET"] != nil { clinux_make_private() }
        ProcessEnvironment.erase("PROXY_API_KEY")
        let logger = settings.makeLogger()
        // Before any thread: all inherit the mask, and the signals reach sigwait alone.
        let signals = ServiceSignals()
        clinux_subreaper()
        clinux_bound_heap()
        let launcher = ClaudeLauncher(settings: settings)
        let models = ModelCatalogStore(launcher: launcher, logger: logger)
        do throws(FileError) {
            try launcher.prepareDirectories()
        } catch {
            throw failure("RUN_DIR: \(error); the responder needs a directory that it may write, with space in it")
        }
        try checkCLI(models, logger)
        let gate: AdmissionGate
        do throws(AdmissionSegmentError) {
            gate = try AdmissionGate(
                path: settings.segmentPath,
                limits: .init(concurrency: settings.concurrency, queueLimit: settings.queueLimit),
                threads: settings.threadsPerResponder
            ) { orphans in
                for orphan in orphans {
                    launcher.end(orphan)
                    logger.notice(
                        "ended a dead responder's run",
                        metadata: [
                            LogKey.responderPID: .stringConvertible(orphan.ownerPID),
                            LogKey.cliPID: .stringConvertible(orphan.processGroup),
                        ])
                }
            }
        } catch {
            throw failure("RUN_DIR: \(error)")
        }
        let listening: ListeningSocket
        do throws(ListeningSocketError) {
            listening = if let socket { try .bind(path: socket) } else { try .inherited() }
        } catch {
            throw failure("socket: \(error)")
        }
        defer { listening.unlinkIfBound() }
        let own = ownSocket(like: listening, settings, logger)
        defer { own?.unlinkIfBound() }
        let responder = Responder(
            settings: settings, keys: keys, gate: gate, launcher: launcher, models: models, logger: logger)
        let server = try FastCGIServer(
            listener: listening.descriptor, own: own, threads: settings.threadsPerResponder, handler: responder.handle)
        signals.handle {
            logger.info("draining", metadata: [LogKey.reason: "\($0)"])
            SystemdNotification.send("STOPPING=1")
            gate.drain()
            server.stop()
            responder.drain()
        } reload: {
            do throws(SettingsError) {
                try keys.reload()
                logger.info("keys read again", metadata: [LogKey.keys: .stringConvertible(keys.ring.entries.count)])
            } catch {
                logger.error("keys not read again: the old ones stay in force", metadata: [LogKey.reason: "\(error)"])
            }
        }
        logger.info(
            "responder started",
            metadata: [
                LogKey.responderPID: .stringConvertible(getpid()),
                LogKey.threads: .stringConvertible(settings.threadsPerResponder),
            ])
        Reaper.start(gate)
        responder.startThreads()
        clinux_release_text()
        clinux_release_heap()
        SystemdNotification.send("READY=1")
        try server.run()
        responder.drain()
        launcher.removeOwnDirectories()
        logger.info("responder ended", metadata: [LogKey.responderPID: .stringConvertible(getpid())])
    }

    /// Where other responders have nginx send what is for this one.
    ///
    /// Without it such requests go to whichever responder is free, so the service works and is slower.
    private func ownSocket(like shared: ListeningSocket, _ settings: Settings, _ logger: Logger) -> ListeningSocket? {
        ListeningSocket.removeStaleOwn(directory: settings.runDirectory)
        do throws(ListeningSocketError) {
            return try .bindOwn(directory: settings.runDirectory, like: shared)
        } catch {
            logger.warning(
                "no socket of its own: a live conversation goes on only where the request happens to arrive",
                metadata: [LogKey.reason: "\(error)"])
            return nil
        }
    }

    /// A CLI that is missing or fails may come back, and requests say so until then.
    ///
    /// One that is too old stops the start.
    private func checkCLI(_ models: ModelCatalogStore, _ logger: Logger) throws {
        let catalog: ModelCatalog
        do throws(APIError) {
            catalog = try models.catalog()
        } catch {
            logger.error(
                "the CLI can't be used",
                metadata: [LogKey.errorKind: "\(error.kind.rawValue)", LogKey.errorCause: "\(error.cause ?? "")"])
            return
        }
        if let version = catalog.version, version < .minimum {
            throw refusal(
                "CLAUDE_PATH: the Claude Code CLI is version \(version), this service needs "
                    + "\(ClaudeVersion.minimum) or newer; update it with `claude update`, or set CLAUDE_PATH to a "
                    + "newer one")
        }
    }

    /// What only the operator can mend.
    private func refusal(_ message: String) -> ExitCode {
        Self.say(message)
        return Self.configurationError
    }

    /// What may pass, such as a full disk: supervisors start the responder again, and not in a hot loop.
    private func failure(_ message: String) -> ExitCode {
        Self.say(message)
        sleep(1)
        return Self.temporaryFailure
    }

    private static func say(_ message: String) {
        let text = "claude-fcgi: \(message)\n"
        _ = unsafe write(2, text, text.utf8.count)
    }
}
