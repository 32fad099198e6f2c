import Dialects
import Glibc
import Logging

/// Writes log lines to standard error, each with one write, so that lines of several threads and processes never mix.
struct LineLogHandler: LogHandler {
    /// A line's form.
    enum Format: Sendable {
        /// One JSON object a line, for systemd's journal and log shippers.
        case json
        /// For eyes.
        case text
    }

    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    private let format: Format
    private let redactor: Redactor

    init(format: Format, level: Logger.Level, redactor: Redactor) {
        self.format = format
        self.redactor = redactor
        logLevel = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let fields = metadata.merging(event.metadata ?? [:]) { _, new in new }.sorted { $0.key < $1.key }
        let time = Timestamp.now()
        var line: [UInt8] = []
        switch format {
        case .json:
            var object = JSONObject([
                .init(key: "time", value: .string(time)), .init(key: "level", value: .string("\(event.level)")),
                .init(key: "message", value: .string("\(event.message)")),
            ])
            for (key, value) in fields { object[key] = json(value) }
            JSONWriter.append(.object(object), to: &line)
        case .text:
            let details = fields.map { "\($0.key)=\(redactor.redacted("\($0.value)"))" }.joined(separator: " ")
            let text = "\(time) \(event.level) \(event.message) \(details)"
            // A control character in a value must not forge a line or drive a terminal.
            line = Array(text.utf8).map { $0 < 0x20 || $0 == 0x7F ? 0x20 : $0 }
        }
        line.append(0x0A)
        _ = unsafe Glibc.write(2, line, line.count)
    }

    /// Numbers and truths stay what they are, so that log shippers can sum them.
    private func json(_ value: Logger.Metadata.Value) -> JSONValue {
        switch value {
        case .stringConvertible(let number as Int): .integer(number)
        case .stringConvertible(let number as Int32): .integer(Int(number))
        case .stringConvertible(let number as Double): .number("\(number)")
        case .stringConvertible(let truth as Bool): .bool(truth)
        default: .string(redactor.redacted("\(value)"))
        }
    }
}

/// Takes the service's own secrets out of text that others wrote, such as the CLI's standard error.
struct Redactor: Sendable {
    private let secrets: [String]

    /// From the service's environment: the values of everything that is a key, token or secret by its name.
    init(environment: [String: String], keys: [String]) {
        let named = environment.filter { name, value in
            value.utf8.count >= 8
                && (name.hasSuffix("_KEY") || name.hasSuffix("_TOKEN") || name.contains("SECRET")
                    || name.contains("PASSWORD"))
        }
        secrets = Array(Set(named.values).union(keys.filter { !$0.isEmpty })).sorted { $0.count > $1.count }
    }

    /// The text with every secret replaced.
    func redacted(_ text: String) -> String {
        var result = text
        for secret in secrets where result.contains(secret) { result = result.replacing(secret, with: "[redacted]") }
        return result
    }
}

extension Settings {
    /// The program's logger, as LOG_LEVEL and LOG_FORMAT have it.
    func makeLogger() -> Logger {
        let isTerminal = isatty(2) == 1
        let format: LineLogHandler.Format =
            switch logFormat {
            case .json: .json
            case .text: .text
            case .auto: isTerminal || environment["CLAUDE_FCGI_TERMINAL"] == "1" ? .text : .json
            }
        let level: Logger.Level =
            switch logLevel {
            case .debug: .debug
            case .info: .info
            case .warn: .warning
            case .error: .error
            }
        let redactor = Redactor(environment: environment, keys: proxyAPIKey.map { [$0] } ?? [])
        return Logger(label: "claude-fcgi") { _ in LineLogHandler(format: format, level: level, redactor: redactor) }
    }
}
