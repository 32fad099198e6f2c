import Testing

@testable import ClaudeFCGI

@Suite struct SettingsTests {
    private static func settings(_ environment: [String: String] = [:]) throws(SettingsError) -> Settings {
        try Settings(environment: environment)
    }

    @Test func `everything has a default but the key`() throws {
        let settings = try Self.settings()
        #expect(settings.port == 6789)
        #expect(settings.tlsPort == 6790)
        #expect(settings.bindAddress == "127.0.0.1")
        #expect(settings.runDirectory == currentDirectory() + "/.run")
        #expect(settings.responders == 2)
        #expect(settings.proxyAPIKey == nil)
        #expect(settings.logLevel == .info)
        #expect(settings.logFormat == .auto)
        #expect(settings.requestTimeout == .milliseconds(300_000))
        #expect(settings.concurrency == 2)
        #expect(settings.queueLimit == 100)
        #expect(settings.queueTimeout == .milliseconds(60_000))
        #expect(settings.claudePath == nil)
        #expect(settings.allowedDirectories == [settings.workspaceDirectory])
        #expect(settings.defaultModel == nil)
        #expect(settings.modelAliases.isEmpty)
        #expect(settings.maxChoices == 8)
    }

    /// Reads one setting in words.
    private static func read(_ name: String, _ settings: Settings) -> String {
        switch name {
        case "PORT": "\(settings.port)"
        case "TLS_PORT": "\(settings.tlsPort)"
        case "BIND_ADDRESS": settings.bindAddress
        case "RUN_DIR": settings.runDirectory
        case "RESPONDERS": "\(settings.responders)"
        case "PROXY_API_KEY": settings.proxyAPIKey ?? ""
        case "LOG_LEVEL": settings.logLevel.rawValue
        case "LOG_FORMAT": settings.logFormat.rawValue
        case "REQUEST_TIMEOUT_MS": "\(settings.requestTimeout.milliseconds)"
        case "WORKER_CONCURRENCY": "\(settings.concurrency)"
        case "MAX_QUEUE_SIZE": "\(settings.queueLimit)"
        case "QUEUE_TIMEOUT_MS": "\(settings.queueTimeout.milliseconds)"
        case "CLAUDE_PATH": settings.claudePath ?? ""
        case "ALLOWED_DIRECTORIES": settings.allowedDirectories.joined(separator: "|")
        case "MODEL_ALIASES": settings.modelAliases.map { "\($0.name)>\($0.model)" }.joined(separator: "|")
        case "MAX_CHOICES": "\(settings.maxChoices)"
        default: settings.defaultModel ?? ""
        }
    }

    @Test(arguments: [
        ("PORT", "1", "1"), ("PORT", "65535", "65535"), ("TLS_PORT", "443", "443"),
        ("BIND_ADDRESS", "0.0.0.0", "0.0.0.0"),
        ("BIND_ADDRESS", "::1", "::1"), ("BIND_ADDRESS", "[::]", "[::]"), ("BIND_ADDRESS", "*", "*"),
        ("RUN_DIR", "/run/x", "/run/x"), ("RUN_DIR", "x", currentDirectory() + "/x"), ("RESPONDERS", "64", "64"),
        ("PROXY_API_KEY", "sk-a!b", "sk-a!b"), ("LOG_LEVEL", "debug", "debug"), ("LOG_LEVEL", "warn", "warn"),
        ("LOG_LEVEL", "error", "error"), ("LOG_FORMAT", "json", "json"), ("LOG_FORMAT", "text", "text"),
        ("REQUEST_TIMEOUT_MS", "1000", "1000.0"), ("WORKER_CONCURRENCY", "1000", "1000"), ("MAX_QUEUE_SIZE", "0", "0"),
        ("QUEUE_TIMEOUT_MS", "1", "1.0"), ("CLAUDE_PATH", "/opt/claude", "/opt/claude"),
        ("ALLOWED_DIRECTORIES", "/a:/b c", "/a|/b c"), ("ALLOWED_DIRECTORIES", "/a::/b:", "/a|/b"),
        ("DEFAULT_MODEL", "opus", "opus"), ("MODEL_ALIASES", "gpt-4o=sonnet", "gpt-4o>sonnet"),
        ("MODEL_ALIASES", " b = x , a=y,", "b>x|a>y"), ("MAX_CHOICES", "1", "1"), ("MAX_CHOICES", "128", "128"),
    ])
    func `a good value is taken`(_ name: String, _ value: String, _ expected: String) throws {
        #expect(try Self.read(name, Self.settings([name: value])) == expected)
    }

    @Test(
        arguments: [
            ("PORT", ["0", "65536", "-1", "x", "80 ", "1.5", "６７８９"]), ("TLS_PORT", ["0", "99999", "https"]),
            ("BIND_ADDRESS", ["localhost", "127.0.0.1;", "example.org", "1.2.3.4 5"]),
            ("RESPONDERS", ["0", "65", "two"]),
            ("PROXY_API_KEY", ["a b", "a\nb", "schlüssel", "\u{7F}"]), ("LOG_LEVEL", ["INFO", "trace", "1"]),
            ("LOG_FORMAT", ["JSON", "xml"]), ("REQUEST_TIMEOUT_MS", ["999", "0", "3600001", "5s"]),
            ("WORKER_CONCURRENCY", ["0", "1001"]), ("MAX_QUEUE_SIZE", ["-1", "10001"]),
            ("QUEUE_TIMEOUT_MS", ["0", "3600001"]), ("ALLOWED_DIRECTORIES", ["relative", "/a:b", "~"]),
            ("MODEL_ALIASES", ["a", "=b", "a=", "a=b=c", "a=b,c", "a= "]), ("MAX_CHOICES", ["0", "129", "all"]),
        ] as [(String, [String])])
    func `a bad value stops the start with the variable's name`(_ name: String, _ values: [String]) throws {
        for value in values {
            let error = try #require(throws: SettingsError.self) { try Self.settings([name: value]) }
            #expect(error.variable == name)
            #expect(error.description.hasPrefix(name + ": "))
            if name == "PROXY_API_KEY" { #expect(!error.description.contains(value), "a key is never shown") }
        }
    }

    @Test func `an empty value counts as none`() throws {
        let names = [
            "PORT", "TLS_PORT", "BIND_ADDRESS", "RUN_DIR", "RESPONDERS", "PROXY_API_KEY", "LOG_LEVEL", "LOG_FORMAT",
            "REQUEST_TIMEOUT_MS", "WORKER_CONCURRENCY", "MAX_QUEUE_SIZE", "QUEUE_TIMEOUT_MS", "CLAUDE_PATH",
            "ALLOWED_DIRECTORIES", "DEFAULT_MODEL", "MODEL_ALIASES", "MAX_CHOICES",
        ]
        let empty = try Self.settings(Dictionary(uniqueKeysWithValues: names.map { ($0, "") }))
        let none = try Self.settings()
        for name in names { #expect(Self.read(name, empty) == Self.read(name, none), "\(name)") }
    }

    @Test func `two ports that are one are refused`() throws {
        let error = try #require(throws: SettingsError.self) {
            try Self.settings(["PORT": "7000", "TLS_PORT": "7000"])
        }
        #expect(error.variable == "TLS_PORT")
    }

    @Test func `nginx waits no longer than an hour`() throws {
        let error = try #require(throws: SettingsError.self) {
            try Self.settings(["REQUEST_TIMEOUT_MS": "3600000", "QUEUE_TIMEOUT_MS": "1"])
        }
        #expect(error.variable == "REQUEST_TIMEOUT_MS")
        #expect(throws: Never.self) { try Self.settings(["REQUEST_TIMEOUT_MS": "3599999", "QUEUE_TIMEOUT_MS": "1"]) }
    }

    @Test(arguments: [(1, 1, 0), (2, 2, 100), (3, 5, 7), (64, 1000, 10000), (7, 1, 1)])
    func `threads are enough for all that run or wait, and a spare`(_ responders: Int, _ running: Int, _ waiting: Int)
        throws
    {
        let settings = try Self.settings([
            "RESPONDERS": "\(responders)", "WORKER_CONCURRENCY": "\(running)", "MAX_QUEUE_SIZE": "\(waiting)",
        ])
        #expect(settings.threadsPerResponder * responders >= running + waiting + Settings.spareThreads)
    }

    @Test func `the key may come as systemd's credential, and the variable wins`() throws {
        let directory = try TemporaryDirectory()
        try directory.write("proxy_api_key", "  from-file\n")
        #expect(try Self.settings(["CREDENTIALS_DIRECTORY": directory.path]).proxyAPIKey == "from-file")
        #expect(try Self.settings(["CREDENTIALS_DIRECTORY": directory.path, "PROXY_API_KEY": "x"]).proxyAPIKey == "x")
        #expect(try Self.settings(["CREDENTIALS_DIRECTORY": directory.path + "/no"]).proxyAPIKey == nil)
    }
}

@Suite struct DotEnvTests {
    private static func parse(_ text: String) throws -> [String] {
        try DotEnv.parse(text, file: "f").map { "\($0.name)=\($0.value)" }
    }

    @Test(
        arguments: [
            ("", []), ("A=1", ["A=1"]), ("A=1\nB=2\n", ["A=1", "B=2"]), ("A=1\r\nB=2\r\n", ["A=1", "B=2"]),
            ("\n\n# c\n  # d\nA=1", ["A=1"]),
            ("export A=1", ["A=1"]), ("  A = 1  ", ["A=1"]), ("A=", ["A="]), ("A=a b", ["A=a b"]), ("A=a=b", ["A=a=b"]),
            ("A=a # c", ["A=a"]), ("A=a#b", ["A=a#b"]), ("A=\"a # b\"", ["A=a # b"]), ("A='a # b' # c", ["A=a # b"]),
            (#"A="a\nb""#, ["A=a\nb"]), (#"A='a\nb'"#, [#"A=a\nb"#]), (#"A="a\"b\\c""#, [#"A=a"b\c"#]),
            (#"A="a\tb""#, [#"A=a\tb"#]),
            ("A=\"\"", ["A="]), ("A=''", ["A="]), ("A=it's", ["A=it's"]), ("A=$HOME", ["A=$HOME"]),
            ("a_1=x", ["a_1=x"]),
            ("A=1\nA=2", ["A=1", "A=2"]), ("A=# c", ["A=# c"]), ("A= # c", ["A=# c"]), ("A=é😀", ["A=é😀"]),
        ] as [(String, [String])])
    func `lines are read as dotenv reads them`(_ text: String, _ expected: [String]) throws {
        #expect(try Self.parse(text) == expected)
    }

    @Test(arguments: [("A", 1), ("=1", 1), ("A=1\nB C=2", 2), ("A-B=1", 1), ("É=1", 1), ("A=\"x", 1), ("\n\nA='x", 3)])
    func `a bad line is named by file and number, never shown`(_ text: String, _ line: Int) throws {
        let error = try #require(throws: SettingsError.self) { try DotEnv.parse(text, file: "/etc/x.env") }
        #expect(error.description == "/etc/x.env: line \(line) is not NAME=value")
    }

    @Test func `a missing file is none, an unreadable one is an error`() throws {
        #expect(throws: Never.self) { try DotEnv.environment(file: "/nonexistent/.env") }
        let directory = try TemporaryDirectory()
        #expect(throws: SettingsError.self) { try DotEnv.environment(file: directory.path) }
    }

    @Test func `the environment wins over the file`() throws {
        let directory = try TemporaryDirectory()
        try directory.write(".env", "PATH=/from-the-file\nONLY_IN_THE_FILE=x\n")
        let environment = try DotEnv.environment(file: directory.path + "/.env")
        #expect(environment["ONLY_IN_THE_FILE"] == "x")
        #expect(environment["PATH"] != "/from-the-file")
    }
}
