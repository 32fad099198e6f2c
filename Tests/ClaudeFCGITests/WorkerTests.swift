import Dialects
import Foundation
import Testing

@testable import ClaudeFCGI

@Suite struct ClaudeEnvironmentTests {
    private static func entries(_ environment: [String: String], hasTools: Bool = false) -> [String: String] {
        let entries = ClaudeEnvironment(service: environment).entries(
            temporaryDirectory: "/tmp/t", marker: "m-1", retries: 2, hasTools: hasTools)
        return Dictionary(
            uniqueKeysWithValues: entries.map { entry in
                let parts = entry.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                return (String(parts[0]), String(parts[1]))
            })
    }

    @Test(arguments: [
        "PATH", "HOME", "USER", "LANG", "TZ", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CONFIG_DIR",
        "CLAUDE_CODE_USE_BEDROCK", "AWS_REGION", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "CLOUD_ML_REGION",
        "LC_ALL",
    ])
    func `what the CLI needs passes`(_ name: String) {
        #expect(Self.entries([name: "v=1 2"])[name] == "v=1 2")
    }

    @Test(
        arguments: [
            "PROXY_API_KEY", "PORT", "TLS_PORT", "RUN_DIR", "LOG_LEVEL", "ALLOWED_DIRECTORIES", "DATABASE_URL",
            "GITHUB_TOKEN",
            "OPENAI_API_KEY", "SECRET", "LD_PRELOAD", "LD_LIBRARY_PATH", "NODE_OPTIONS", "BASH_ENV", "ENV",
            "PYTHONPATH", "IFS",
            "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "NOTIFY_SOCKET", "SSH_AUTH_SOCK", "CLAUDECODE", "CLAUDE_PATH",
            "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_SSE_PORT",
            "path",
        ])
    func `nothing else does`(_ name: String) {
        #expect(Self.entries([name: "value-that-stays-here"])[name] == nil)
    }

    @Test func `the service's own key never reaches the CLI, by whatever name`() {
        let all = Self.entries(["PROXY_API_KEY": "the-secret", "CLAUDE_FCGI_RUN": "forged", "PATH": "/bin"])
        #expect(!all.values.contains { $0.contains("the-secret") })
        #expect(all["CLAUDE_FCGI_RUN"] == "m-1")
    }

    @Test func `a run has its own temporary directory and the second lock against @path`() {
        let chat = Self.entries(["TMPDIR": "/elsewhere", "CLAUDE_CODE_TMPDIR": "/elsewhere"])
        #expect(chat["TMPDIR"] == "/tmp/t")
        #expect(chat["CLAUDE_CODE_TMPDIR"] == "/tmp/t")
        #expect(chat["CLAUDE_CODE_DISABLE_ATTACHMENTS"] == "1")
        #expect(Self.entries([:], hasTools: true)["CLAUDE_CODE_DISABLE_ATTACHMENTS"] == nil)
    }

    @Test func `a CLI without tools collects garbage only as it comes up`() {
        #expect(Self.entries([:])["BUN_GC_TIMER_DISABLE"] == "1")
        #expect(Self.entries([:], hasTools: true)["BUN_GC_TIMER_DISABLE"] == nil)
        #expect(Self.entries(["BUN_GC_TIMER_DISABLE": "0"])["BUN_GC_TIMER_DISABLE"] == "0")
    }

    @Test func `what the CLI caches goes with the run, but not the caches of its tools`() {
        #expect(Self.entries(["XDG_CACHE_HOME": "/elsewhere"])["XDG_CACHE_HOME"] == "/tmp/t")
        #expect(Self.entries([:], hasTools: true)["XDG_CACHE_HOME"] == nil)
    }

    @Test func `the CLI calls nobody else, whatever the service's environment says`() {
        let all = Self.entries(["DISABLE_TELEMETRY": "0", "DISABLE_AUTOUPDATER": "0"])
        for name in [
            "DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER", "DISABLE_ERROR_REPORTING",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        ] {
            #expect(all[name] == "1")
        }
    }

    @Test func `there is a PATH even when the service has none`() {
        #expect(Self.entries([:])["PATH"] == "/usr/local/bin:/usr/bin:/bin")
        #expect(Self.entries([:])["LANG"] == "C.UTF-8")
    }

    @Test(
        arguments: [
            (["ANTHROPIC_API_KEY": "x"], ClaudeEnvironment.Login.variable("ANTHROPIC_API_KEY")),
            (["ANTHROPIC_API_KEY": ""], .none),
            (["CLAUDE_CODE_OAUTH_TOKEN": "x"], .variable("CLAUDE_CODE_OAUTH_TOKEN")),
            (["CLAUDE_CODE_USE_VERTEX": "1"], .variable("CLAUDE_CODE_USE_VERTEX")), ([:], .none),
            (["HOME": "/nonexistent"], .none),
        ] as [([String: String], ClaudeEnvironment.Login)])
    func `the login is known`(_ environment: [String: String], _ login: ClaudeEnvironment.Login) {
        #expect(ClaudeEnvironment(service: environment).login == login)
    }

    @Test func `a stored login is known by its file`() throws {
        let directory = try TemporaryDirectory()
        try directory.write(".credentials.json", "{}")
        #expect(ClaudeEnvironment(service: ["CLAUDE_CONFIG_DIR": directory.path]).login == .stored)
        try directory.directory("home/.claude")
        try directory.write("home/.claude/.credentials.json", "{}")
        #expect(ClaudeEnvironment(service: ["HOME": directory.path + "/home"]).login == .stored)
    }
}

@Suite struct WorkingDirectoryTests {
    private let base: TemporaryDirectory
    private let roots: [String]

    init() throws {
        base = try TemporaryDirectory()
        try base.directory("allowed/sub")
        try base.directory("allowed-evil")
        try base.directory("outside/below")
        try base.write("allowed/file", "x")
        try base.link("allowed/out", to: base.path + "/outside")
        try base.link("allowed/in", to: base.path + "/allowed/sub")
        try base.link("allowed/loop", to: "loop")
        try base.link("linked", to: base.path + "/allowed")
        roots = [base.path + "/allowed", base.path + "/missing-root"]
    }

    @Test(arguments: [
        ("allowed", "allowed"), ("allowed/", "allowed"), ("allowed/sub", "allowed/sub"),
        ("allowed/./sub//", "allowed/sub"),
        ("allowed/in", "allowed/sub"), ("linked/sub", "allowed/sub"),
    ])
    func `what is at or below a root is allowed, with its links resolved`(_ path: String, _ expected: String) throws {
        #expect(try WorkingDirectory.resolve("\(base.path)/\(path)", roots: roots) == "\(base.path)/\(expected)")
    }

    @Test(arguments: ["allowed-evil", "outside", "allowed/out", "allowed/out/below", "nonexistent", ""])
    func `what is outside is forbidden, and nothing is said of what exists`(_ path: String) throws {
        let error = try #require(throws: APIError.self) {
            try WorkingDirectory.resolve("\(base.path)/\(path)", roots: roots)
        }
        #expect(error.kind == .forbidden)
        #expect(error.parameter == "workingDirectory")
        #expect(!error.message.contains("exist"))
    }

    @Test(arguments: [
        "allowed/nope", "allowed/file", "allowed/file/x", "allowed/../outside", "allowed/sub/..",
        "allowed/sub/../..",
    ])
    func `what is no directory below a root is a bad request`(_ path: String) throws {
        let error = try #require(throws: APIError.self) {
            try WorkingDirectory.resolve("\(base.path)/\(path)", roots: roots)
        }
        #expect(error.kind == .invalidRequest)
        #expect(error.parameter == "workingDirectory")
    }

    @Test(arguments: ["", "relative", "~", "./x", " /tmp", "/tmp\u{0}/x"])
    func `what is no absolute path is a bad request`(_ path: String) throws {
        let error = try #require(throws: APIError.self) { try WorkingDirectory.resolve(path, roots: ["/"]) }
        #expect(error.kind == .invalidRequest)
    }

    /// Whether a link leads to something that exists outside must not show either.
    @Test func `links out of a root to something and to nothing are answered alike`() throws {
        try base.link("allowed/out-missing", to: base.path + "/outside/nothing")
        let found = try #require(throws: APIError.self) {
            try WorkingDirectory.resolve(base.path + "/allowed/out", roots: roots)
        }
        let missing = try #require(throws: APIError.self) {
            try WorkingDirectory.resolve(base.path + "/allowed/out-missing", roots: roots)
        }
        #expect(found == missing)
    }

    @Test func `a directory that is open stays the one that was looked at`() throws {
        let path = base.path + "/allowed/swapped"
        try base.link("allowed/swapped", to: base.path + "/allowed/sub")
        let directory = try WorkingDirectory.open(path, roots: roots)
        try #require(unsafe unlink(path) == 0)
        try base.link("allowed/swapped", to: base.path + "/outside")
        #expect(directory.path == base.path + "/allowed/sub")
        #expect(Files.linkTarget("/proc/self/fd/\(directory.descriptor)") == base.path + "/allowed/sub")
        #expect(throws: APIError.self) { try WorkingDirectory.resolve(path, roots: roots) }
    }

    @Test(arguments: ["/proc/self/cwd", "/proc/self/root/etc", "/dev/fd"])
    func `the kernel's own links don't lead around the roots`(_ path: String) throws {
        let error = try #require(throws: APIError.self) { try WorkingDirectory.resolve(path, roots: roots) }
        #expect(error.kind == .forbidden)
    }

    @Test func `a directory whose path is not UTF-8 is not taken`() throws {
        let name: [CChar] = (base.path + "/allowed/").utf8.map { CChar(bitPattern: $0) } + [-1, 0]
        try #require(unsafe mkdir(name, 0o700) == 0)
        defer { unsafe rmdir(name) }
        let link = base.path + "/allowed/to-bytes"
        try #require(unsafe symlink(name, link) == 0)
        #expect(throws: APIError.self) { try WorkingDirectory.resolve(link, roots: roots) }
    }

    @Test func `without roots nothing is allowed`() throws {
        let error = try #require(throws: APIError.self) { try WorkingDirectory.resolve(base.path, roots: []) }
        #expect(error.kind == .forbidden)
        #expect(error.message.contains("ALLOWED_DIRECTORIES"))
    }

    @Test func `the root of all allows all, and a trailing slash in a root is none`() throws {
        #expect(try WorkingDirectory.resolve(base.path + "/outside", roots: ["/"]) == base.path + "/outside")
        #expect(
            try WorkingDirectory.resolve(base.path + "/allowed/sub", roots: [base.path + "/allowed/"]) == base.path
                + "/allowed/sub")
        #expect(throws: APIError.self) {
            try WorkingDirectory.resolve(base.path + "/allowed-evil", roots: [base.path + "/allowed/"])
        }
    }
}

@Suite struct RunIDTests {
    @Test func `ids are unique and short`() {
        let ids = (0..<1000).map { _ in RunID.next().text }
        #expect(Set(ids).count == 1000)
        for id in ids {
            #expect(id.utf8.count <= 32)
            #expect(
                id.utf8.allSatisfy {
                    $0 == UInt8(ascii: "-") || (0x30...0x39).contains($0) || (0x61...0x7A).contains($0)
                })
            #expect(id.hasPrefix("\(getpid())-"))
        }
    }

    @Test func `random identifiers are version 4 UUIDs`() {
        let ids = (0..<1000).map { _ in UUIDText.random() }
        #expect(Set(ids).count == 1000)
        for id in ids {
            #expect(UUID(uuidString: id) != nil)
            #expect(Array(id)[14] == "4")
            #expect("89ab".contains(Array(id)[19]))
        }
    }
}

@Suite struct FilesTests {
    @Test func `a file is replaced whole`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/f"
        try Files.replace(path, with: Array("one".utf8))
        let before = Files.identity(path)
        try Files.replace(path, with: Array("two".utf8))
        #expect(try Files.read(path, limitBytes: 10) == "two")
        #expect(Files.identity(path) != before)
        #expect(Files.names(in: directory.path) == ["f"])
    }

    @Test func `a file over the limit and a missing one are errors with their path`() throws {
        let directory = try TemporaryDirectory()
        try directory.write("f", "12345")
        #expect(throws: FileError.self) { try Files.read(directory.path + "/f", limitBytes: 4) }
        let error = try #require(throws: FileError.self) { try Files.read(directory.path + "/no", limitBytes: 4) }
        #expect(error.number == Files.notFound)
        #expect(error.description.contains(directory.path + "/no"))
    }

    @Test func `removal takes all of a directory and follows no link`() throws {
        let directory = try TemporaryDirectory()
        try directory.directory("tree/a/b")
        try directory.write("tree/a/f", "x")
        try directory.write("kept", "x")
        try directory.link("tree/link", to: directory.path + "/kept")
        try directory.directory("kept-directory")
        try directory.write("kept-directory/f", "x")
        try directory.link("tree/directory-link", to: directory.path + "/kept-directory")
        Files.remove(directory.path + "/tree")
        #expect(Set(Files.names(in: directory.path)) == ["kept", "kept-directory"])
        #expect(Files.names(in: directory.path + "/kept-directory") == ["f"])
    }
}
