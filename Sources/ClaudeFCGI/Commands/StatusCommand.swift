import Admission
import ArgumentParser
import Dialects
import Glibc

/// `claude-fcgi status`: what the service does now, read from shared memory without asking any responder.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show what runs and what waits, over all responders.",
        discussion: "Exit status: 0 when a responder lives, 1 when none does.")

    @Flag(help: "As JSON, one object.") var json = false
    @Flag(help: "Again every second, until interrupted.") var watch = false

    func run() throws {
        let settings = try Settings(environment: try DotEnv.environment())
        while true {
            let board = try AdmissionGate.scoreboard(path: settings.segmentPath)
            if watch, !json { print("\u{1B}[H\u{1B}[2J", terminator: "") }
            if let board {
                print(json ? StatusReport.json(board) : StatusReport.table(board))
            } else {
                print(json ? #"{"responders":[]}"# : "no responder has run with RUN_DIR=\(settings.runDirectory)")
            }
            guard watch else {
                if board?.responders.isEmpty ?? true { throw ExitCode(1) }
                return
            }
            fflush(nil)
            sleep(1)
        }
    }
}

/// Forms of the scoreboard for people and scripts.
enum StatusReport {
    static func table(_ board: Scoreboard) -> String {
        let totals = board.totals
        var text =
            "\(board.counts.running) of \(board.limits.concurrency) running, "
            + "\(board.counts.waiting) of \(board.limits.queueLimit) waiting; admitted \(totals.admitted), "
            + "refused \(totals.refused), timed out \(totals.timedOut), retried \(totals.retries), "
            + "reaped \(totals.reaped)\n"
        text += columns(
            [["RESPONDER", "THREADS", "REQUESTS", "SPARES", "LIVE", "MEMORY", "UP"]]
                + board.responders.map {
                    [
                        "\($0.pid)", "\($0.threads)", "\($0.requests)", "\($0.spares)", "\($0.live)",
                        "\(($0.spareKibibytes + $0.liveKibibytes) >> 10)M", age($0.age),
                    ]
                })
        if !board.requests.isEmpty {
            text +=
                "\n"
                + columns(
                    [["STAGE", "AGE", "CLIENT", "ROUTE", "MODEL", "CLI", "RESPONDER"]]
                        + board.requests.map { request in
                            [
                                stage(request), age(request.age), request.client, route(request), request.model,
                                request.cliPID.map { "\($0)" } ?? "-", "\(request.responderPID)",
                            ]
                        })
        }
        return text
    }

    static func json(_ board: Scoreboard) -> String {
        let totals = board.totals
        let value: JSONValue = [
            "running": .integer(board.counts.running), "waiting": .integer(board.counts.waiting),
            "concurrency": .integer(board.limits.concurrency), "queueLimit": .integer(board.limits.queueLimit),
            "responders": .array(
                board.responders.map {
                    [
                        "pid": .integer(Int($0.pid)), "threads": .integer($0.threads),
                        "requests": .integer($0.requests), "spares": .integer($0.spares),
                        "live": .integer($0.live),
                        "memoryBytes": .integer(($0.spareKibibytes + $0.liveKibibytes) << 10),
                        "upSeconds": .integer(Int($0.age.components.seconds)),
                    ]
                }),
            "requests": .array(
                board.requests.map {
                    [
                        "stage": .string(stage($0)), "ageMs": .integer(Int($0.age.milliseconds)),
                        "client": .string($0.client), "route": .string(route($0)), "model": .string($0.model),
                        "cliPid": $0.cliPID.map { .integer(Int($0)) } ?? .null,
                        "responderPid": .integer(Int($0.responderPID)),
                    ]
                }),
            "totals": [
                "admitted": .integer(totals.admitted), "refused": .integer(totals.refused),
                "timedOut": .integer(totals.timedOut), "abandoned": .integer(totals.abandoned),
                "reaped": .integer(totals.reaped), "retries": .integer(totals.retries),
                "inputTokens": .integer(totals.inputTokens), "outputTokens": .integer(totals.outputTokens),
                "costUsd": .number("\(Double(totals.costMicrodollars) / 1e6)"),
            ],
        ]
        return String(decoding: JSONWriter.bytes(value), as: UTF8.self)
    }

    private static func stage(_ request: Scoreboard.Request) -> String { request.stage.map { "\($0)" } ?? "?" }

    private static func route(_ request: Scoreboard.Request) -> String {
        Route.names.indices.contains(request.route) ? Route.names[request.route] : "?"
    }

    private static func age(_ duration: Duration) -> String {
        let seconds = duration.components.seconds
        if seconds < 10 { return "\((duration.milliseconds / 100).rounded() / 10)s" }
        if seconds < 120 { return "\(seconds)s" }
        return seconds < 7200 ? "\(seconds / 60)m" : "\(seconds / 3600)h"
    }

    static func columns(_ rows: [[String]]) -> String {
        guard let head = rows.first else { return "" }
        let widths = head.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            row.indices.map { row[$0] + String(repeating: " ", count: widths[$0] - row[$0].count) }
                .joined(separator: "  ").trimmed
        }.joined(separator: "\n") + "\n"
    }
}
