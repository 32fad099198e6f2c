import ArgumentParser
import Glibc

/// `claude-fcgi keys`: who may call the service.
struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys", abstract: "Make, list and remove clients' keys.",
        discussion: "The keys file has names and hashes, no keys. Responders read it again on SIGHUP.",
        subcommands: [Add.self, List.self, Remove.self])

    /// Where the keys are.
    struct Location: ParsableArguments {
        @Option(help: "The keys file; PROXY_API_KEYS_FILE where it is not given.")
        var file: String?

        func path() throws -> String {
            if let file { return file }
            let settings = try Settings(environment: try DotEnv.environment())
            guard let path = settings.keysFile else {
                throw ValidationError("name the keys file with --file, or set PROXY_API_KEYS_FILE")
            }
            return path
        }
    }

    /// `claude-fcgi keys add NAME`.
    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a key, print it once and store its hash.")

        @OptionGroup var location: Location
        @Argument(help: "Whose key it is: letters, digits, `-`, `_` and `.`.") var name: String
        @Option(help: "How many requests of this client run at most.") var concurrency: Int?
        @Option(help: "How many requests of this client wait at most.") var queue: Int?
        @Option(help: "Where this client's runs may work, instead of ALLOWED_DIRECTORIES: /a:/b.") var directories:
            String?
        @Option(help: "The tools of /api/run that this client may name: Read,Bash.") var tools: String?

        func run() throws {
            guard KeyRing.isName(name), name != KeyRing.defaultName else {
                throw ValidationError(
                    "a name has up to 32 letters, digits, `-`, `_` and `.`; `\(KeyRing.defaultName)` is "
                        + "PROXY_API_KEY's")
            }
            let path = try location.path()
            var text = try KeysFile.text(path)
            if try KeyRing.parse(text, file: path).contains(where: { $0.client.name == name }) {
                throw ValidationError("\(path) has a key for \(name) already; remove it first")
            }
            var generator = SystemRandomNumberGenerator()
            let key = "cf-" + (0..<32).map { _ in KeysFile.hex(UInt8.random(in: 0...255, using: &generator)) }.joined()
            var line = "\(name):" + KeyRing.hash(key).map { KeysFile.hex($0) }.joined()
            if let concurrency { line += " concurrency=\(concurrency)" }
            if let queue { line += " queue=\(queue)" }
            if let directories { line += " directories=\(directories)" }
            if let tools { line += " tools=\(tools)" }
            if !text.isEmpty, !text.hasSuffix("\n") { text += "\n" }
            text += line + "\n"
            _ = try KeyRing.parse(text, file: path)
            try Files.replace(path, with: Array(text.utf8))
            print(key)
        }
    }

    /// `claude-fcgi keys list`.
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List names and limits.")

        @OptionGroup var location: Location

        func run() throws {
            let path = try location.path()
            for entry in try KeyRing.parse(try KeysFile.text(path), file: path) {
                print(([entry.client.name] + entry.client.limitsText).joined(separator: " "))
            }
        }
    }

    /// `claude-fcgi keys remove NAME`.
    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove a client's key.")

        @OptionGroup var location: Location
        @Argument(help: "Whose key goes.") var name: String

        func run() throws {
            let path = try location.path()
            let lines = try KeysFile.text(path).split(separator: "\n", omittingEmptySubsequences: false)
            let kept = lines.filter { !$0.hasPrefix("\(name):") }
            guard kept.count < lines.count else { throw ValidationError("\(path) has no key for \(name)") }
            try Files.replace(path, with: Array(kept.joined(separator: "\n").utf8))
        }
    }
}

private enum KeysFile {
    /// A file that is not there yet has no keys.
    static func text(_ path: String) throws -> String {
        do throws(FileError) {
            return try Files.read(path, limitBytes: 1 << 20)
        } catch {
            if error.number == Files.notFound { return "" }
            throw error
        }
    }

    static func hex(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }
}
