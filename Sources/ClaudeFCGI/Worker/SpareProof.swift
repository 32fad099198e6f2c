// Whether warm spares can be used with the installed CLI: tried once for each CLI file, remembered in RUN_DIR for all responders.
//
// A warm process is told the system prompt in a way that a CLI may acknowledge and ignore. So one is made to ask an upstream of
// ours, a listener on loopback that answers 400 to everything: what it is sent shows whether the prompt is in it, and whether
// anything is left of the warming. Nothing reaches the vendor.

import Dialects
import Glibc
import Logging
import Synchronization

/// Knows whether warm spares can be used.
final class SpareProof: Sendable {
    private struct Known {
        var identity: Files.Identity
        var isProved: Bool
    }

    /// A start, a warming and one turn, on a busy machine.
    private static let patience = Duration.seconds(30)

    private let launcher: ClaudeLauncher
    private let logger: Logger
    private let known = Mutex<Known?>(nil)

    init(launcher: ClaudeLauncher, logger: Logger) {
        self.launcher = launcher
        self.logger = logger
    }

    /// Whether a CLI with this environment can be warmed at all.
    var isPossible: Bool { ClaudeWarmup.isPossible(environment: launcher.environment.inherited) }

    /// Whether warm spares can be used; tried where that is not known yet.
    @available(*, noasync, message: "blocks while it is tried")
    func isProved(_ identity: Files.Identity) -> Bool {
        guard isPossible else { return false }
        if let known = known.withLock({ $0 }), known.identity == identity { return known.isProved }
        let isProved = readCache(identity) ?? prove(identity)
        known.withLock { $0 = Known(identity: identity, isProved: isProved) }
        return isProved
    }

    private var cachePath: String { launcher.settings.runDirectory + "/spares.json" }

    private func readCache(_ identity: Files.Identity) -> Bool? {
        guard let text = try? Files.read(cachePath, limitBytes: 65536),
            let json = try? JSONParser.parse(Array(text.utf8)), json["cli"]?.stringValue == identity.description
        else { return nil }
        return json["proved"]?.boolValue
    }

    private func prove(_ identity: Files.Identity) -> Bool {
        let isProved: Bool
        do throws(SpareFailure) {
            isProved = try tried()
        } catch {
            // It may pass: not remembered beyond this process.
            logger.warning("spares can't be warmed now", metadata: [LogKey.errorCause: "\(error.cause)"])
            return false
        }
        if !isProved { logger.notice("this CLI's spares can't be warmed: they are only started") }
        let json: JSONValue = ["cli": .string(identity.description), "proved": .bool(isProved)]
        try? Files.replace(cachePath, with: JSONWriter.bytes(json))
        return isProved
    }

    /// Tries it.
    ///
    /// - Returns: Whether a warm process sent what a fresh one would have sent.
    @available(*, noasync, message: "blocks")
    func tried() throws(SpareFailure) -> Bool {
        guard let listener = LoopbackListener() else { throw SpareFailure(cause: "no port on loopback") }
        var plan = LaunchPlan(RunRequest(turns: []), roots: [])
        plan.retries = 0
        var process: ClaudeProcess
        do throws(APIError) {
            process = try launcher.start(plan)
        } catch {
            throw SpareFailure(cause: error.cause ?? error.message)
        }
        defer {
            _ = process.child.terminate(patience: .zero, grace: .milliseconds(50))
            process.remains.remove()
        }
        var lines = LineBuffer(limitBytes: RunPump.lineLimitBytes)
        try launcher.warm(&process, &lines, retries: 0, patience: Self.patience)
        let bodies = listener.serve()
        var proof = ClaudeProof(listener: listener.address)
        _ = ClaudeDialogue.run(&process.child, &lines, opening: proof.start(), deadline: .now + Self.patience) {
            (proof.receive($0, in: $1), proof.isOver)
        }
        listener.close()
        guard let body = bodies.first else { throw SpareFailure(cause: "the CLI asked nothing of the listener") }
        guard let json = try? JSONParser.parse(body) else { return false }
        return ClaudeProof.isProof(body: json)
    }
}
