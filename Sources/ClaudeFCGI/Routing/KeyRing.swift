import Admission
import Crypto
import Dialects
import Synchronization

/// The service's keys and whose they are.
struct KeyRing: Sendable {
    /// One key, by its hash.
    struct Entry: Sendable, Equatable {
        /// SHA-256 of the key.
        var hash: [UInt8]
        /// Whose it is, with limits of its own.
        var client: Client
    }

    /// The name of PROXY_API_KEY's holder.
    static let defaultName = "default"

    private(set) var entries: [Entry] = []

    /// From PROXY_API_KEY and the keys file.
    init(key: String?, file: String?) throws(SettingsError) {
        if let file {
            let text: String
            do throws(FileError) {
                text = try Files.read(file, limitBytes: 1 << 20)
            } catch {
                throw SettingsError(
                    variable: "PROXY_API_KEYS_FILE",
                    problem: "\(error); make it with `claude-fcgi keys add NAME --file \(file)`")
            }
            entries = try Self.parse(text, file: file)
        }
        if let key { entries.append(Entry(hash: Self.hash(key), client: Client(name: Self.defaultName))) }
    }

    /// A keys file: `name:sha256-of-key`, then perhaps `concurrency=N`, `queue=N`, `directories=/a:/b`
    /// and `tools=Read,Bash`; `#` begins a comment.
    static func parse(_ text: String, file: String) throws(SettingsError) -> [Entry] {
        var entries: [Entry] = []
        for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let words = line.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" }
            guard let first = words.first else { continue }
            func malformed(_ problem: String) -> SettingsError {
                SettingsError(variable: "PROXY_API_KEYS_FILE", problem: "\(file) line \(index + 1): \(problem)")
            }
            let parts = first.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, isName(String(parts[0])) else {
                throw malformed("must be name:sha256-of-key; a name has letters, digits, `-`, `_` and `.`")
            }
            guard let hash = bytes(hex: parts[1]), hash.count == 32 else {
                throw malformed("the hash must be 64 hexadecimal digits")
            }
            var client = Client(name: String(parts[0]))
            for word in words.dropFirst() {
                let pair = word.split(separator: "=", omittingEmptySubsequences: false)
                guard pair.count == 2, client.set(String(pair[0]), String(pair[1])) else {
                    throw malformed(
                        "`\(word.prefix(60))` is not concurrency=N (at least 1), queue=N, directories=/a:/b or "
                            + "tools=Read,Bash")
                }
            }
            if entries.contains(where: { $0.client.name == client.name }) || client.name == defaultName {
                throw malformed("the name \(client.name) is taken")
            }
            entries.append(Entry(hash: hash, client: client))
        }
        return entries
    }

    /// The client whose key was sent.
    ///
    /// - Parameters:
    ///   - authorization: The `Authorization` header; its scheme is not case-sensitive (RFC 9110), the key is.
    ///   - apiKey: The `x-api-key` header, as Anthropic's SDKs send it.
    /// - Throws: ``APIError`` auth_error.
    func client(authorization: String?, apiKey: String?) throws(APIError) -> Client {
        var found: Client?
        for candidate in [authorization.flatMap { Self.bearer($0) }, apiKey] {
            guard let candidate else { continue }
            let hash = Self.hash(candidate)
            // Every entry is looked at in full, whichever matches: the time tells nothing of the keys.
            for entry in entries where Self.areEqual(entry.hash, hash) { found = entry.client }
        }
        guard let found else {
            throw APIError(
                .auth,
                authorization == nil && apiKey == nil
                    ? "No key was sent. Send the service's key as `Authorization: Bearer KEY` or `x-api-key: KEY`."
                    : "The key is not one of this service's. Send it as `Authorization: Bearer KEY` or `x-api-key: "
                        + "KEY`.")
        }
        return found
    }

    /// SHA-256 of a key.
    static func hash(_ key: String) -> [UInt8] { Array(SHA256.hash(data: Array(key.utf8))) }

    /// Whether a text can be a client's name: it stands in logs and tables.
    static func isName(_ text: String) -> Bool {
        (1...32).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                    true
                default: false
                }
            }
    }

    private static func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        for index in left.indices { difference |= left[index] ^ right[index] }
        return difference == 0
    }

    private static func bearer(_ header: String) -> String? {
        let parts = header.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
        return String(parts[1]).trimmed
    }

    private static func bytes(hex: Substring) -> [UInt8]? {
        let digits = Array(hex.utf8)
        guard digits.count % 2 == 0 else { return nil }
        var result: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let byte = UInt8(String(decoding: digits[index...(index + 1)], as: UTF8.self), radix: 16) else {
                return nil
            }
            result.append(byte)
        }
        return result
    }
}

/// The keys in force, read anew when the operator says so.
final class KeyRingStore: Sendable {
    private let current: Mutex<KeyRing>
    private let key: String?
    private let file: String?

    /// Reads the keys.
    ///
    /// - Throws: ``SettingsError`` also where there is no key at all: the service never runs open.
    init(_ settings: Settings) throws(SettingsError) {
        key = settings.proxyAPIKey
        file = settings.keysFile
        let ring = try KeyRing(key: key, file: file)
        guard !ring.entries.isEmpty else {
            throw SettingsError(
                variable: "PROXY_API_KEY",
                problem: "is not set; put PROXY_API_KEY=a-long-random-secret into the environment or .env, or name a "
                    + "keys file in PROXY_API_KEYS_FILE")
        }
        current = Mutex(ring)
    }

    /// The keys in force.
    var ring: KeyRing { current.withLock { $0 } }

    /// Reads the keys file again; a bad one changes nothing.
    func reload() throws(SettingsError) {
        let ring = try KeyRing(key: key, file: file)
        current.withLock { $0 = ring }
    }
}
