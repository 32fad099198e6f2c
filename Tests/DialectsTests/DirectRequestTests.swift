import Dialects
import Testing

@Suite struct DirectRequestTests {
    private func decode(_ members: String, _ policy: DirectPolicy = DirectPolicy()) throws -> RunRequest {
        try DirectRequest.decode(try json(#"{"prompt":"x"\#(members)}"#), policy: policy)
    }

    private func profile(_ members: String, _ policy: DirectPolicy = DirectPolicy()) throws -> AgentProfile {
        guard case .agent(let profile) = try decode(members, policy).profile else {
            throw APIError(.internal, "no agent profile")
        }
        return profile
    }

    private func error(_ members: String, _ policy: DirectPolicy = DirectPolicy()) throws -> APIError {
        try #require(throws: APIError.self) { try decode(members, policy) }
    }

    // MARK: Tools

    @Test func `a run that names no tools gets the reading ones, in its directory`() throws {
        #expect(
            try profile("")
                == AgentProfile(tools: ["Glob", "Grep", "Read"], allowRules: ["Read(./**)"], workingDirectory: nil))
    }

    @Test func `an empty list of tools means none`() throws {
        let profile = try profile(#","allowedTools":[]"#)
        #expect(profile.tools == [] && profile.allowRules == [])
    }

    @Test(arguments: [
        "Read(//etc/**)", "Read(/etc/passwd)", "Write(~/x)", "Edit(../x)", "Edit(./../x)", "Read(./a/../../x)",
        "Glob(**)", "Write(x)",
    ])
    func `a file tool is not granted anything beyond the directory`(_ rule: String) throws {
        let error = try error(#","allowedTools":["\#(rule)"]"#)
        #expect(error.kind == .invalidRequest && error.parameter == "allowedTools[0]")
    }

    @Test(
        arguments: [
            (#"["Write(./src/**)","Read(./a.txt)"]"#, ["Write", "Read"], ["Edit(./src/**)", "Read(./a.txt)"]),
            (
                #"["Bash(git *)","Bash(ls (x))","Read","Write"]"#, ["Bash", "Read", "Write"],
                ["Bash(git *)", "Bash(ls (x))", "Read(./**)", "Edit(./**)"]
            ),
            (#"["Read","Read","Grep"]"#, ["Read", "Grep"], ["Read(./**)"]),
        ] as [(String, [String], [String])])
    func `tools come from the rules' names, each once, and file tools keep to the directory`(
        _ allowed: String, _ tools: [String], _ rules: [String]
    ) throws {
        let profile = try profile(#","allowedTools":\#(allowed)"#)
        #expect(profile.tools == tools && profile.allowRules == rules)
    }

    @Test func `a refused tool is taken away, a refused rule is told to the CLI in its own words`() throws {
        let profile = try profile(
            #","allowedTools":["Bash","Write","Read"],"disallowedTools":["Write","Bash(rm *)","MultiEdit(./a/**)","Glob(//etc/**)"]"#
        )
        #expect(profile.tools == ["Bash", "Read"])
        #expect(profile.denyRules == ["Write", "Bash(rm *)", "Edit(./a/**)", "Read(//etc/**)"])
    }

    // MARK: The operator's bounds

    private static let bounded = DirectPolicy(tools: ["Read", "Bash(git *)", "Write(./out/**)"])

    @Test(
        arguments: [
            (#"["Read"]"#, nil), (#"["Read(./a)"]"#, nil), (#"["Bash(git *)"]"#, nil), (#"["Write(./out/**)"]"#, nil),
            (#"["Bash"]"#, "allowedTools[0]"), (#"["Read","Bash(git log)"]"#, "allowedTools[1]"),
            (#"["Write"]"#, "allowedTools[0]"), (#"["Grep"]"#, "allowedTools[0]"), ("[]", nil),
        ] as [(String, String?)])
    func `the operator's tools bound what a caller may name`(_ allowed: String, _ parameter: String?) throws {
        guard let parameter else {
            #expect(throws: Never.self) { try decode(#","allowedTools":\#(allowed)"#, Self.bounded) }
            return
        }
        let error = try error(#","allowedTools":\#(allowed)"#, Self.bounded)
        #expect(error.kind == .forbidden && error.parameter == parameter)
        #expect(error.message.contains("Read, Bash(git *), Write(./out/**)"))
    }

    @Test func `a run that names no tools gets what the operator leaves of the reading ones`() throws {
        #expect(try profile("", Self.bounded).tools == ["Read"])
        #expect(try profile("", DirectPolicy(tools: ["Bash"])).tools == [])
        #expect(try profile("", DirectPolicy(tools: ["Read(./docs/**)"])).allowRules == ["Read(./docs/**)"])
    }

    @Test(
        arguments: [
            ("acceptEdits", #"["Write(./out/**)"]"#, true), ("acceptEdits", #"["Read"]"#, false),
            ("plan", #"["Write(./out/**)"]"#, false), ("bypassPermissions", #"["Bash(git *)"]"#, true),
        ] as [(String, String, Bool)])
    func `a mode that permits more than the operator's rules is refused`(
        _ mode: String, _ allowed: String, _ isRefused: Bool
    ) throws {
        var policy = Self.bounded
        policy.permissionModes = DirectPolicy.knownPermissionModes
        let members = #","allowedTools":\#(allowed),"permissionMode":"\#(mode)""#
        guard isRefused else {
            #expect(try profile(members, policy).permissionMode == mode)
            return
        }
        let error = try error(members, policy)
        #expect(error.kind == .forbidden && error.parameter == "permissionMode")
    }

    @Test func `a mode that the operator does not list is forbidden`() throws {
        let error = try error(#","permissionMode":"bypassPermissions""#)
        #expect(error.kind == .forbidden && error.parameter == "permissionMode")
        #expect(error.message.contains("default, acceptEdits, plan, dontAsk"))
    }

    // MARK: MCP servers

    private static let servers = DirectPolicy(allowsMCPServers: true)
    private static let good =
        #","mcpServers":{"a_b":{"command":"/bin/x","args":["-v"],"env":{"K":"V"}},"web":{"type":"http","url":"https://h/x","headers":{"A":"b"},"headersHelper":"evil"}}"#

    @Test func `MCP servers are rebuilt from what is known of them`() throws {
        let request = try decode(Self.good, Self.servers)
        #expect(request.ignoredParameters == ["mcpServers.web.headersHelper"])
        guard case .agent(let profile) = request.profile else { return #expect(Bool(false), "no agent") }
        #expect(
            text(.object(profile.mcpServers))
                == #"{"a_b":{"type":"stdio","command":"/bin/x","args":["-v"],"env":{"K":"V"}},"web":{"type":"http","url":"https://h/x","headers":{"A":"b"}}}"#
        )
    }

    @Test func `MCP servers are forbidden unless the operator allows them`() throws {
        let error = try error(Self.good)
        #expect(error.kind == .forbidden && error.parameter == "mcpServers")
    }

    @Test(
        arguments: [
            (#"{"a__b":{"command":"x"}}"#, "mcpServers"), (#"{"client":{"command":"x"}}"#, "mcpServers"),
            (#"{"":{"command":"x"}}"#, "mcpServers"), (#"{"a b":{"command":"x"}}"#, "mcpServers"),
            (#"{"a":1}"#, "mcpServers.a"), (#"{"a":{}}"#, "mcpServers.a.command"),
            (#"{"a":{"command":" "}}"#, "mcpServers.a.command"), (#"{"a":{"type":"sdk"}}"#, "mcpServers.a.type"),
            (#"{"a":{"command":"x","args":[1]}}"#, "mcpServers.a.args"),
            (#"{"a":{"command":"x","env":{"K":1}}}"#, "mcpServers.a.env"),
            (#"{"a":{"type":"http"}}"#, "mcpServers.a.url"),
            (#"{"a":{"type":"sse","url":"file:///x"}}"#, "mcpServers.a.url"),
            (#"{"a":{"type":"http","url":"http://x","headers":[]}}"#, "mcpServers.a.headers"),
        ])
    func `a bad MCP server is named`(_ servers: String, _ parameter: String) throws {
        let error = try error(#","mcpServers":\#(servers)"#, Self.servers)
        #expect(error.kind == .invalidRequest && error.parameter == parameter)
    }

    @Test(
        arguments: [
            ("mcp__a_b", true), ("mcp__a_b__tool-1", true), ("mcp__web", true), ("mcp__a", false), ("mcp__", false),
            ("mcp__a_b__", false), ("mcp__a_b_tool", false), ("mcp__a_b__t(x)", false), ("mcp__a_b__*", false),
        ])
    func `tools of the request's MCP servers can be granted and refused`(_ name: String, _ isKnown: Bool) throws {
        for list in ["allowedTools", "disallowedTools"] {
            let members = Self.good + #","\#(list)":["\#(name)"]"#
            guard isKnown else {
                #expect(try error(members, Self.servers).parameter == "\(list)[0]")
                continue
            }
            let profile = try profile(members, Self.servers)
            #expect((list == "allowedTools" ? profile.allowRules : profile.denyRules) == [name])
        }
    }

    // MARK: Sessions, limits, prompts

    @Test(
        arguments: [
            ("", .new), (#","ephemeral":true"#, SessionWish.none), (#","ephemeral":false"#, .new),
            (#","sessionId":"s""#, .existing(id: "s", forks: false)),
            (#","sessionId":"s","fork":true"#, .existing(id: "s", forks: true)),
        ] as [(String, SessionWish)])
    func `a run wants a session unless it says otherwise`(_ members: String, _ wish: SessionWish) throws {
        #expect(try decode(members).session == wish)
    }

    @Test(arguments: [
        (#","ephemeral":true,"sessionId":"s""#, "ephemeral"), (#","fork":true"#, "fork"),
        (#","fork":true,"ephemeral":true"#, "fork"), (#","background":true,"stream":true"#, "background"),
    ])
    func `parameters that exclude each other are refused`(_ members: String, _ parameter: String) throws {
        let error = try error(members)
        #expect(error.kind == .invalidRequest && error.parameter == parameter)
    }

    @Test func `everything that is asked for is in the request`() throws {
        let request = try decode(
            #","model":"opus","effort":"high","systemPrompt":"S","appendSystemPrompt":"A","schema":{"type":"object"},"#
                + #""maxTurns":3,"maxBudgetUsd":0.25,"timeoutMs":2500,"permissionMode":"plan","addDirs":["/srv/b"],"#
                + #""workingDirectory":"/a/../b","stream":true,"other":1"#)
        #expect(request.model == "opus" && request.effort == "high" && request.system == ["S"])
        #expect(request.outputSchema == ["type": "object"] && request.outputSchemaParameter == "schema")
        #expect(request.timeout == .milliseconds(2500) && request.isStreaming && !request.isBackground)
        #expect(request.thinking == .summarized && request.ignoredParameters == ["other"])
        guard case .agent(let profile) = request.profile else { return #expect(Bool(false), "no agent") }
        #expect(profile.appendedSystemPrompt == "A" && profile.maxTurns == 3 && profile.maxBudgetUSD == 0.25)
        #expect(profile.permissionMode == "plan" && profile.addedDirectories == ["/srv/b"])
        // Where it is is looked at by who starts the run.
        #expect(profile.workingDirectory == "/a/../b")
        #expect(
            request.launchArguments == [
                "--tools", "Glob,Grep,Read", "--permission-mode=plan", "--max-turns=3", "--max-budget-usd=0.25",
            ])
    }

    @Test func `a prompt may be blocks`() throws {
        let blocks =
            #"[{"type":"text","text":"T","cache_control":{"type":"ephemeral"}},{"type":"search_result","source":"s","title":"t","content":[]},{"type":"document","source":{"type":"text","media_type":"text/plain","data":"d"}}]"#
        let request = try DirectRequest.decode(try json(#"{"prompt":\#(blocks)}"#), policy: DirectPolicy())
        #expect(request.turns.count == 1)
        #expect(
            text(.array(request.turns[0].blocks))
                == blocks.replacing(#","cache_control":{"type":"ephemeral"}"#, with: ""))
    }

    @Test func `the service's limit bounds the time`() throws {
        let policy = DirectPolicy(timeoutLimit: .milliseconds(5000))
        #expect(try decode(#","timeoutMs":5000"#, policy).timeout == .seconds(5))
        #expect(try error(#","timeoutMs":5001"#, policy).message.contains("from 1000 to 5000"))
    }

    // MARK: Directories

    @Test func `file tools reach into added directories as far as into their own`() throws {
        let request = try decode(
            #","allowedTools":["Write","Read(./a/**)","Bash"],"addDirs":["/x","/y"]"#
        ).resolvingDirectories(["/srv/x", "/"])
        var conversation = ClaudeConversation(request, model: nil)
        _ = conversation.start()
        let line = Array(
            #"{"type":"control_response","response":{"subtype":"success","request_id":"initialize","response":{}}}"#
                .utf8)
        guard case .write(let bytes) = conversation.receive(line, in: 0..<line.count).first else {
            return #expect(Bool(false), "no settings")
        }
        #expect(
            String(decoding: bytes, as: UTF8.self)
                == #"{"type":"control_request","request_id":"settings","request":{"subtype":"apply_flag_settings","settings":{"permissions":{"allow":["Edit(./**)","Edit(//srv/x/**)","Edit(//**)","Read(./a/**)","Bash"],"additionalDirectories":["/srv/x","/"]}}}}"#
                + "\n")
    }

    @Test(arguments: ["/srv/a*", "/srv/[a]", "/srv/{a,b}", "/srv/a?", "/srv/!a", #"/srv/a\b"#, "/srv/a\nb"])
    func `a directory that a rule would read as a pattern is not added`(_ directory: String) throws {
        let request = try decode(#","addDirs":["/ok","/x"]"#)
        let error = try #require(throws: APIError.self) { try request.resolvingDirectories(["/ok", directory]) }
        #expect(error.kind == .invalidRequest && error.parameter == "addDirs[1]")
    }

    @Test func `nothing of a caller's is an argument`() {
        var profile = AgentProfile(tools: ["Bash", "--evil"], allowRules: ["Bash(x)"], workingDirectory: "/w")
        profile.permissionMode = "--evil"
        profile.appendedSystemPrompt = "evil"
        profile.addedDirectories = ["/evil"]
        let request = RunRequest(model: "evil", system: ["evil"], turns: [], profile: .agent(profile))
        #expect(request.launchArguments == ["--tools", "Bash"])
        #expect(RunRequest(turns: []).launchArguments == ["--tools", "", "--allowedTools", "mcp__client"])
    }
}
