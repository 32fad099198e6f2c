// `.env` as the Node proxy's users know it (the dotenv package): NAME=value lines, `export ` allowed in front, `#` comments,
// values bare or in single or double quotes; \n, \" and \\ are escapes inside double quotes.

/// Reads `.env` files.
enum DotEnv {
    /// The process's environment with a file's settings behind it: what the environment sets wins.
    static func environment(file path: String = ".env") throws(SettingsError) -> [String: String] {
        var result = ProcessEnvironment.all
        let text: String
        do {
            text = try Files.read(path, limitBytes: 1 << 20)
        } catch {
            if error.number == Files.notFound { return withCredentials(result) }
            throw SettingsError(variable: path, problem: "can't be read: \(error)")
        }
        for (name, value) in try parse(text, file: path) where result[name] == nil { result[name] = value }
        return withCredentials(result)
    }

    /// systemd's LoadCredential= gives the upstream's key as a file; the CLI knows it as a variable.
    private static func withCredentials(_ environment: [String: String]) -> [String: String] {
        var result = environment
        if let directory = environment["CREDENTIALS_DIRECTORY"], environment["ANTHROPIC_API_KEY"] == nil,
            let key = try? Files.read("\(directory)/anthropic_api_key", limitBytes: 4096).trimmed, !key.isEmpty
        {
            result["ANTHROPIC_API_KEY"] = key
        }
        return result
    }

    /// A file's settings in order.
    static func parse(_ text: String, file: String) throws(SettingsError) -> [(name: String, value: String)] {
        var result: [(name: String, value: String)] = []
        for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            var line = String(line).trimmed
            if line.isEmpty || line.hasPrefix("#") { continue }
            if line.hasPrefix("export ") { line = String(line.dropFirst("export ".count)).trimmed }
            guard let equals = line.firstIndex(of: "=") else { throw malformed(file, index) }
            let name = String(line[..<equals]).trimmed
            guard !name.isEmpty, name.utf8.allSatisfy({ $0 == UInt8(ascii: "_") || isAlphanumeric($0) }) else {
                throw malformed(file, index)
            }
            guard let value = value(String(line[line.index(after: equals)...]).trimmed) else {
                throw malformed(file, index)
            }
            result.append((name, value))
        }
        return result
    }

    private static func malformed(_ file: String, _ index: Int) -> SettingsError {
        SettingsError(variable: file, problem: "line \(index + 1) is not NAME=value")
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
    }

    private static func value(_ text: String) -> String? {
        guard let quote = text.first, quote == "\"" || quote == "'" else {
            guard let comment = text.range(ofFirst: " #") else { return text }
            return String(text[..<comment]).trimmed
        }
        var value = ""
        var rest = text.dropFirst()
        while let character = rest.popFirst() {
            if character == quote { return value }
            guard character == "\\", quote == "\"", let next = rest.popFirst() else {
                value.append(character)
                continue
            }
            value += next == "n" ? "\n" : next == "\"" || next == "\\" ? String(next) : "\\" + String(next)
        }
        return nil
    }
}

extension String {
    /// Where `needle` begins first.
    fileprivate func range(ofFirst needle: String) -> Index? {
        indices.first { self[$0...].hasPrefix(needle) }
    }
}
