import Dialects
import Glibc

/// Appends each request to a file, one JSON line each, so that a test can see what the CLI sent.
struct RequestRecord: Sendable {
    /// The headers that are kept; keys are not among them.
    private static let headers = [
        "user-agent", "anthropic-beta", "anthropic-version", "x-claude-code-session-id", "x-app",
    ]

    private let descriptor: CInt

    /// Opens the file, creating it readable for its owner only; nil with errno when that fails.
    init?(path: String) {
        descriptor = unsafe open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
        if descriptor < 0 { return nil }
    }

    /// Appends a request.
    ///
    /// One write at the file's end: lines of several threads and processes never mix.
    ///
    /// - Parameters:
    ///   - body: A valid JSON text, kept byte for byte but for line ends, which JSON allows only between values.
    ///   - header: The value of a header.
    func append(path: String, body: [UInt8], header: (String) -> String?) {
        let kept = Self.headers.compactMap { name in
            header(name).map { JSONObject.Member(key: name, value: .string($0)) }
        }
        var line: [UInt8] = []
        line.reserveCapacity(body.count + 1024)
        JSONWriter.append(raw: #"{"path":"#, to: &line)
        JSONWriter.append(string: path, to: &line)
        JSONWriter.append(raw: #","headers":"#, to: &line)
        JSONWriter.append(.object(JSONObject(kept)), to: &line)
        JSONWriter.append(raw: #","body":"#, to: &line)
        for byte in body { line.append(byte == 0x0A || byte == 0x0D ? 0x20 : byte) }
        JSONWriter.append(raw: "}\n", to: &line)
        _ = unsafe line.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
    }
}
