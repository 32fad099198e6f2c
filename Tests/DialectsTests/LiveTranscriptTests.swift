import Dialects
import Testing

/// Processes that answered several requests, one after the other.
@Suite struct LiveTranscriptTests {
    /// A recorded process and what is done with its lines.
    private struct Process {
        private var requests: [RunRequest] = []
        private let isWarm: Bool
        private var warmup: ClaudeWarmup
        private var conversation: ClaudeConversation?
        private var key: [UInt8] = []
        private(set) var written = ""
        private(set) var answers: [Answer] = []

        init(_ transcript: Transcript) throws {
            let json = try JSONParser.parse(transcript.bytes("requests.json"))
            for request in json["requests"]?.arrayValue ?? [] {
                requests.append(try MessagesRequest.decode(request["body"] ?? nil))
            }
            isWarm = json["warm"]?.boolValue ?? false
            warmup = ClaudeWarmup(
                upstream: "http://127.0.0.1:9876", baseURL: "http://127.0.0.1:6789/offline-upstream", retries: "2")
            if isWarm {
                take(warmup.start())
            } else {
                begin()
            }
        }

        private mutating func begin() {
            var conversation = ClaudeConversation(
                requests[0], model: "sonnet", resolvedModel: "claude-sonnet-5-5",
                entry: isWarm ? .warm(defaultModel: nil) : .cold)
            let actions = conversation.start()
            self.conversation = conversation
            answers.append(Answer())
            take(actions)
        }

        mutating func receive(_ line: String) {
            let bytes = Array(line.utf8)
            if conversation != nil {
                take(conversation?.receive(bytes, in: bytes.indices) ?? [])
            } else {
                take(warmup.receive(bytes, in: bytes.indices))
                if warmup.isReady { begin() }
            }
        }

        private mutating func take(_ actions: [ClaudeConversation.Action]) {
            for action in actions {
                switch action {
                case .write(let bytes): written += String(decoding: bytes, as: UTF8.self)
                case .event(let event): answers[answers.count - 1].append(event)
                case .end: next()
                }
            }
        }

        /// The turn is over: the next request goes on.
        private mutating func next() {
            let last = requests[answers.count - 1]
            let key = ConversationKey.bytes(
                request: last, model: "sonnet", client: nil, turns: last.turns(with: answers[answers.count - 1]))
            guard answers.count < requests.count else { return }
            let request = requests[answers.count]
            guard let (history, _) = request.liveSplit, conversation?.isContinuable == true,
                key == ConversationKey.bytes(request: request, model: "sonnet", client: nil, turns: history)
            else {
                Issue.record("request \(answers.count) does not go on")
                return
            }
            conversation?.park()
            answers.append(Answer())
            take(conversation?.resume(request) ?? [])
        }
    }

    @Test(arguments: Transcript.lives)
    func `a process that answered several requests does so again`(_ transcript: Transcript) throws {
        var process = try Process(transcript)
        for line in try transcript.lines("cli.stdout.jsonl") { process.receive(line) }
        #expect(process.written == String(decoding: try transcript.bytes("cli.stdin.jsonl"), as: UTF8.self))
        let expected = try JSONParser.parse(transcript.bytes("requests.json"))["answers"]?.arrayValue
        #expect(process.answers.map { .array($0.turnBlocks) } == expected)
        #expect(process.answers.last?.summary?.usage.output ?? 0 > 0)
        #expect(process.answers.allSatisfy { !$0.sessionID.isEmpty })
    }

    @Test func `both kinds of process are recorded`() {
        #expect(Transcript.lives.map(\.name) == ["live-chat", "live-warm-tools"])
    }

    @Test(arguments: Transcript.lives)
    func `nothing of the machine is in a transcript`(_ transcript: Transcript) throws {
        for file in ["cli.stdout.jsonl", "cli.stdin.jsonl", "NOTE.md", "requests.json"] {
            let text = String(decoding: try transcript.bytes(file), as: UTF8.self)
            for trace in ["/tmp/", "/root/", "/home/", "sk-ant", "record-key"] {
                #expect(!text.contains(trace), "\(file) has \(trace)")
            }
        }
    }
}
