// Whether warm spares can be used with the installed CLI: tried once for each CLI file, remembered in RUN_DIR for all responders.
//
// A warm process is told the system prompt in a way that a CLI may acknowledge and ignore. So one is made to ask an upstream of
// ours, a listener on loopback that answers 400 to everything: what it is sent shows whether the prompt is in it, and whether
// anything is left of the warming. Nothing reaches the vendor.

import Dialects
import Glibc
import Logging
import Synchronization

/// How a spare is started.
enum SpareKind: String, Sendable, CaseIterable {
    /// Warmed, with what makes its runtime quicker for short turns (``ClaudeEnvironment``).
    case tuned
    /// Warmed: this CLI's runtime does not know those options, and ends when it finds one that it does not know.
    case warm
    /// Started, and no more.
    case started
}

/// Knows whether warm spares can be used.
final class SpareProof: Sendable {
    private struct Known {
        var identity: Files.Identity
        var kind: SpareKind
        /// When it is tried again; nil for never.
        var end: ContinuousClock.Instant?
    }

    /// A start, a warming and one turn, on a busy machine.
    private static let patience = Duration.seconds(30)
    /// How long a trial that came to nothing counts: the machine may have been too busy.
    private static let doubt = Duration.seconds(300)
    /// What is remembered of another way of warming does not count.
    private static let version = 2

    private let launcher: ClaudeLauncher
    private let logger: Logger
    private let known = Mutex<Known?>(nil)

    init(launcher: ClaudeLauncher, logger: Logger) {
        self.launcher = launcher
        self.logger = logger
    }

    /// Whether a CLI with this environment can be warmed at all.
    var isPossible: Bool { ClaudeWarmup.isPossible(environment: launcher.environment.inherited) }

    /// How spares of this CLI are started; tried where that is not known yet.
    ///
    /// - Parameter starting: By which a trial is held up, and given up.
    @available(*, noasync, message: "blocks while it is tried")
    func kind(_ identity: Files.Identity, _ starting: SpareStart) -> SpareKind {
        guard isPossible else { return .started }
        let now = ContinuousClock.now
        if let known = known.withLock({ $0 }), known.identity == identity, known.end.map({ now < $0 }) ?? true {
            return known.kind
        }
        let proved = readCache(identity) ?? prove(identity, starting)
        let kind = proved ?? .started
        known.withLock {
            $0 = Known(identity: identity, kind: kind, end: proved == nil ? .now + Self.doubt : nil)
        }
        return kind
    }

    private var cachePath: String { launcher.settings.runDirectory + "/spares.json" }

    private func readCache(_ identity: Files.Identity) -> SpareKind? {
        guard let text = try? Files.read(cachePath, limitBytes: 65536),
            let json = try? JSONParser.parse(Array(text.utf8)), json["cli"]?.stringValue == identity.description,
            json["version"]?.intValue == Self.version
        else { return nil }
        return json["spares"]?.stringValue.flatMap { SpareKind(rawValue: $0) }
    }

    private func prove(_ identity: Files.Identity, _ starting: SpareStart) -> SpareKind? {
        let kind: SpareKind
        do throws(SpareFailure) {
            kind = try tried(starting)
        } catch {
            // It may pass.
            if starting.isAborted { return nil }
            logger.warning("spares can't be warmed now", metadata: [LogKey.errorCause: "\(error.cause)"])
            return nil
        }
        if kind == .started { logger.notice("this CLI's spares can't be warmed: they are only started") }
        let json: JSONValue = [
            "version": .integer(Self.version), "cli": .string(identity.description), "spares": .string(kind.rawValue),
        ]
        try? Files.replace(cachePath, with: JSONWriter.bytes(json))
        return kind
    }

    /// Tries each kind, the best first.
    @available(*, noasync, message: "blocks")
    func tried(_ starting: SpareStart = SpareStart()) throws(SpareFailure) -> SpareKind {
        do throws(SpareFailure) {
            if try sendsTheSame(.tuned, starting) { return .tuned }
        } catch {
            if error.mayPass || starting.isAborted { throw error }
            logger.notice("spares are not tuned", metadata: [LogKey.errorCause: "\(error.cause)"])
        }
        return try sendsTheSame(.warm, starting) ? .warm : .started
    }

    /// - Returns: Whether a warm process sent what a fresh one would have sent.
    @available(*, noasync, message: "blocks")
    private func sendsTheSame(_ kind: SpareKind, _ starting: SpareStart) throws(SpareFailure) -> Bool {
        guard let listener = LoopbackListener() else {
            throw SpareFailure(cause: "no port on loopback", mayPass: true)
        }
        var plan = LaunchPlan(RunRequest(turns: []), roots: [])
        plan.retries = 0
        plan.isTuned = kind == .tuned
        var process: ClaudeProcess
        do throws(APIError) {
            process = try launcher.start(plan)
        } catch {
            throw SpareFailure(cause: error.cause ?? error.message)
        }
        starting.begin(process.child.pid)
        defer {
            // Its number may be another's once it has been reaped.
            starting.end()
            _ = process.child.terminate(patience: .zero, grace: .milliseconds(50))
            process.remains.remove()
        }
        var lines = LineBuffer(limitBytes: RunPump.lineLimitBytes)
        try launcher.ready(&process, &lines, retries: 0, patience: Self.patience) { starting.look() }
        let bodies = listener.serve { _ in nil }
        var proof = ClaudeProof(listener: listener.address)
        _ = ClaudeDialogue.run(
            &process.child, &lines, opening: proof.start(), deadline: .now + Self.patience, look: { starting.look() }
        ) { (proof.receive($0, in: $1), proof.isOver) }
        listener.close()
        guard let body = bodies.first else { throw SpareFailure(cause: "the CLI asked nothing of the listener") }
        guard let json = try? JSONParser.parse(body) else { return false }
        return ClaudeProof.isProof(body: json)
    }
}
