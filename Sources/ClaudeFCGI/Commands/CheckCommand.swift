import ArgumentParser
import Dialects
import FastCGI
import Glibc
import Logging

/// `claude-fcgi check`: whether this machine is ready, in plain words.
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Say whether this machine is ready: settings, CLI, login, directories, socket, limits.",
        discussion: "Exit status: 0 ready (there may be warnings), 1 not ready.")

    @Option(help: "The responders' socket, to look at who may reach it.")
    var socket: String?

    func run() throws {
        var report = CheckReport()
        do throws(SettingsError) {
            let settings = try Settings(environment: try DotEnv.environment())
            report.ok("settings", "are valid")
            Checks(settings: settings, socket: socket).all(&report)
        } catch {
            report.failed("settings", "\(error)", fix: "correct the variable \(error.variable)")
        }
        print(report.text, terminator: "")
        if report.hasFailed { throw ExitCode(1) }
    }
}

/// The findings of a check, a line each.
struct CheckReport {
    private(set) var text = ""
    private(set) var hasFailed = false

    mutating func ok(_ subject: String, _ finding: String) { line("ok  ", subject, finding, nil) }

    mutating func warning(_ subject: String, _ finding: String, fix: String) { line("warn", subject, finding, fix) }

    mutating func failed(_ subject: String, _ finding: String, fix: String) {
        hasFailed = true
        line("FAIL", subject, finding, fix)
    }

    private mutating func line(_ mark: String, _ subject: String, _ finding: String, _ fix: String?) {
        text += "\(mark)  \(subject): \(finding)\n"
        if let fix { text += "      -> \(fix)\n" }
    }
}

/// The single checks.
private struct Checks {
    /// Resident memory of one CLI process, measured with 2.1.330 (165 MB), rounded up.
    private static let bytesPerCLI = 180 << 20

    let settings: Settings
    let socket: String?

    func all(_ report: inout CheckReport) {
        key(&report)
        directories(&report)
        cli(&report)
        login(&report)
        socketAccess(&report)
        limits(&report)
        if geteuid() == 0 {
            report.warning(
                "user", "this is root, and so would be the CLI and its tools",
                fix: "run the service as "
                    + "a user of its own, as deploy/systemd does")
        } else {
            report.ok("user", "is not root (uid \(geteuid()))")
        }
    }

    private func key(_ report: inout CheckReport) {
        do throws(SettingsError) {
            let keys = try KeyRingStore(settings)
            report.ok("keys", "\(keys.ring.entries.map(\.client.name).joined(separator: ", ")) may call")
        } catch {
            report.failed("keys", "\(error)", fix: "correct \(error.variable)")
        }
        if let key = settings.proxyAPIKey, key.utf8.count < 16 {
            report.warning(
                "PROXY_API_KEY", "has only \(key.utf8.count) characters", fix: "use a random one: openssl rand -hex 24")
        }
    }

    private func cli(_ report: inout CheckReport) {
        guard let path = ClaudeLocator.path(settings) else {
            report.failed(
                "CLI", "CLAUDE_PATH is not set and no `claude` is on PATH",
                fix: "install Claude Code, "
                    + "or set CLAUDE_PATH to its program")
            return
        }
        guard Files.isExecutableFile(path) else {
            report.failed("CLI", "\(path) is not a program that may be run", fix: "correct CLAUDE_PATH")
            return
        }
        let launcher = ClaudeLauncher(settings: settings)
        let models = ModelCatalogStore(launcher: launcher, logger: settings.makeLogger())
        do throws(APIError) {
            let catalog = try models.catalog()
            guard let version = catalog.version else {
                report.failed("CLI", "\(path) does not say its version", fix: "set CLAUDE_PATH to the Claude Code CLI")
                return
            }
            if version < .minimum {
                report.failed(
                    "CLI", "\(path) is version \(version); \(ClaudeVersion.minimum) or newer is needed",
                    fix: "claude update")
            } else {
                report.ok(
                    "CLI",
                    "\(path), version \(version), answers; models: "
                        + "\(catalog.models.map(\.id).joined(separator: ", "))")
                spares(launcher, &report)
            }
        } catch {
            let version = ClaudeProbe.version(path)
            if let version, version < .minimum {
                report.failed(
                    "CLI", "\(path) is version \(version); \(ClaudeVersion.minimum) or newer is needed",
                    fix: "claude update")
            } else {
                report.failed(
                    "CLI",
                    "\(path) \(version.map { "(version \($0)) " } ?? "")does not answer: "
                        + "\(error.cause ?? error.message)", fix: "try it by hand: \(path) -p hello")
            }
        }
    }

    /// Tries what a responder tries before it warms spares.
    private func spares(_ launcher: ClaudeLauncher, _ report: inout CheckReport) {
        guard settings.spares > 0 else {
            return report.ok("SPARES", "0: each request starts a process, or goes on in one that has its conversation")
        }
        if case .none = launcher.environment.login {
            return report.ok("SPARES", "\(settings.spares); whether they can be warmed is seen with a login only")
        }
        // The report says it all.
        let proof = SpareProof(
            launcher: launcher, logger: Logger(label: "check", factory: { _ in SwiftLogNoOpLogHandler() }))
        guard proof.isPossible else {
            return report.ok(
                "SPARES",
                "\(settings.spares), started and not warmed: this CLI's requests go by a proxy or to a cloud provider")
        }
        do throws(SpareFailure) {
            let how =
                switch try proof.tried() {
                case .tuned: "warmed"
                case .warm: "warmed; this CLI's runtime does not take the options that make it quicker"
                case .started: "started and not warmed: this CLI does not take it"
                }
            report.ok("SPARES", "\(settings.spares), \(how)")
        } catch {
            report.warning(
                "SPARES", "a spare could not be warmed: \(error.cause)",
                fix: "try again on an idle machine; SPARES=0 does without")
        }
    }

    private func login(_ report: inout CheckReport) {
        let environment = ClaudeEnvironment(service: settings.environment)
        switch environment.login {
        case .variable(let name): report.ok("login", "by \(name)")
        case .stored: report.ok("login", "stored in \(environment.configurationDirectory ?? "")")
        case .none:
            report.warning(
                "login",
                "none: no ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN, ANTHROPIC_AUTH_TOKEN, cloud "
                    + "provider setting or stored login",
                fix: "set one of them, or log in as the service's user with `claude`")
        }
    }

    private func directories(_ report: inout CheckReport) {
        do throws(FileError) {
            for directory in [
                settings.temporaryDirectory, settings.chatDirectory, settings.workspaceDirectory,
                settings.freshDirectory,
            ] {
                try Files.makeDirectory(directory)
                let probe = "\(directory)/.check-\(getpid())"
                try Files.replace(probe, with: Array("x".utf8))
                Files.remove(probe)
            }
            report.ok("RUN_DIR", "\(settings.runDirectory) may be written")
        } catch {
            report.failed(
                "RUN_DIR", "\(error)",
                fix: "set RUN_DIR to a directory that this user may write, and "
                    + "free some space")
        }
        for root in settings.allowedDirectories {
            if Files.isDirectory(root), unsafe access(root, R_OK | X_OK) == 0 {
                report.ok("ALLOWED_DIRECTORIES", "\(root) can be entered")
            } else {
                report.failed(
                    "ALLOWED_DIRECTORIES", "\(root) is no directory that this user can enter",
                    fix: "make it, or take it out")
            }
        }
    }

    private func socketAccess(_ report: inout CheckReport) {
        let path = socket ?? settings.runDirectory + "/claude-fcgi.sock"
        if path.utf8.count > 107 {
            report.failed(
                "socket", "\(path) is longer than the 107 bytes that Linux allows", fix: "choose a shorter RUN_DIR")
            return
        }
        var status = stat()
        guard unsafe stat(path, &status) == 0 else {
            report.ok("socket", "\(path) is not there yet; the service manager makes it")
            return
        }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            report.failed("socket", "\(path) is not a socket", fix: "remove it")
            return
        }
        if status.st_mode & 0o006 != 0 {
            report.failed(
                "socket", "\(path) is open to every user of this machine",
                fix: "chmod 0660 \(path): "
                    + "only nginx may speak FastCGI to the responders")
            return
        }
        guard let nginx = Self.nginxUser() else {
            report.warning(
                "socket", "\(path) is there, but no user www-data or nginx to compare it with",
                fix: "see that nginx's workers may write to it")
            return
        }
        let mayWrite =
            nginx.id == status.st_uid || (status.st_mode & 0o060 == 0o060 && nginx.groups.contains(status.st_gid))
        if mayWrite || geteuid() == 0 && status.st_uid == 0 {
            report.ok("socket", "\(path) is there, for its owner and group alone")
        } else {
            report.failed(
                "socket", "\(path) can't be written by \(nginx.name), the user of nginx's workers",
                fix: "chgrp \(nginx.name) \(path) && chmod 0660 \(path), or SocketGroup= in claude-fcgi.socket")
        }
    }

    private static func nginxUser() -> (name: String, id: uid_t, groups: [gid_t])? {
        for name in ["www-data", "nginx"] {
            guard let entry = unsafe getpwnam(name) else { continue }
            let (id, group) = unsafe (entry.pointee.pw_uid, entry.pointee.pw_gid)
            var groups = [gid_t](repeating: 0, count: 64)
            var count = CInt(groups.count)
            guard unsafe getgrouplist(name, group, &groups, &count) >= 0 else { return (name, id, [group]) }
            return (name, id, Array(groups.prefix(Int(count))))
        }
        return nil
    }

    private func limits(_ report: inout CheckReport) {
        var files = rlimit()
        unsafe getrlimit(__rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue)), &files)
        // A thread has an epoll set and a connection; a run has three pipes, a pidfd and what starting one takes.
        let needed = settings.threadsPerResponder * 2 + settings.concurrency * 8 + 32
        if files.rlim_cur < needed {
            report.failed(
                "limits", "\(files.rlim_cur) open files are allowed, a responder needs up to \(needed)",
                fix: "raise LimitNOFILE= or ulimit -n")
        } else {
            report.ok(
                "limits",
                "\(settings.responders) responders with \(settings.threadsPerResponder) threads "
                    + "each: \(settings.concurrency) run, \(settings.queueLimit) wait")
        }
        let wanted = settings.concurrency * Self.bytesPerCLI
        guard let available = Self.availableMemory() else { return }
        if available < wanted {
            report.warning(
                "memory",
                "\(settings.concurrency) CLI processes need about \(wanted >> 20) MiB, "
                    + "\(available >> 20) MiB are free", fix: "lower WORKER_CONCURRENCY")
        } else {
            report.ok(
                "memory",
                "\(available >> 20) MiB are free, \(settings.concurrency) CLI processes need about "
                    + "\(wanted >> 20)")
        }
    }

    private static func availableMemory() -> Int? {
        guard let text = try? Files.read("/proc/meminfo", limitBytes: 1 << 16) else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
    }
}
