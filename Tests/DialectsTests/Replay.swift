import Dialects
import Testing

/// Puts a transcript through line buffer, conversation and encoder, as a responder does with a process's output.
struct Replay {
    /// A reply in the form of its golden file.
    struct Reply: Equatable {
        var file: String
        var text: String
    }

    private let path: String
    private let dialect: Dialect
    private let request: RunRequest
    private var conversation: ClaudeConversation
    private var lines = LineBuffer(limitBytes: 1 << 20)
    private var stream: (any StreamEncoder)?
    private var answer = Answer()
    private var body: [UInt8] = []
    private var whole: JSONValue?
    private(set) var failure: APIError?
    /// What was written to the CLI.
    private(set) var written: [UInt8] = []
    private(set) var events: [RunEvent] = []
    private(set) var hasEnded = false

    init(_ transcript: Transcript) throws {
        let (path, body) = try transcript.request()
        self.path = path
        switch path {
        case "/v1/chat/completions":
            dialect = .openAI
            request = try ChatCompletionsRequest.decode(body)
            if request.isStreaming {
                stream = ChatCompletionsStream(context: Transcript.context, includesUsage: request.includesUsage)
            }
        case "/v1/messages":
            dialect = .anthropic
            request = try MessagesRequest.decode(body)
            if request.isStreaming { stream = MessagesStream() }
        default:
            dialect = .direct
            request = try DirectRequest.decode(body)
        }
        let catalog = try ModelCatalog.recorded()
        conversation = ClaudeConversation(request, model: try request.model.map { try catalog.resolve($0) })
        perform(conversation.start())
    }

    /// Takes what one read from the CLI's output gave.
    mutating func receive(_ chunk: ArraySlice<UInt8>) throws {
        try lines.append(chunk)
        while let line = lines.nextLine() { perform(conversation.receive(lines.bytes, in: line)) }
    }

    /// The CLI's output ended.
    mutating func end() { perform(conversation.outputEnded(cause: "the transcript ended")) }

    private mutating func perform(_ actions: [ClaudeConversation.Action]) {
        for action in actions {
            switch action {
            case .write(let bytes): written += bytes
            case .event(let event): take(event)
            case .end: hasEnded = true
            }
        }
    }

    private mutating func take(_ event: RunEvent) {
        events.append(event)
        if case .failed(let error) = event {
            failure = error
            if stream != nil, !body.isEmpty {
                dialect.appendErrorEvent(error, requestID: Transcript.context.requestID, to: &body)
            }
            return
        }
        answer.append(event)
        stream?.encode(event, into: &body)
        guard stream == nil else { return }
        // The direct API's result is the CLI's own report, so it waits for that.
        switch (event, dialect) {
        case (.answered, .openAI): whole = ChatCompletionsReply.whole(answer, context: Transcript.context)
        case (.answered, .anthropic): whole = MessagesReply.whole(answer)
        case (.finished, .direct): whole = DirectReply.whole(answer, id: Transcript.runID, duration: .zero)
        default: break
        }
    }

    var reply: Reply {
        if !body.isEmpty { return Reply(file: "response.sse", text: String(decoding: body, as: UTF8.self)) }
        if let failure {
            let error = dialect.errorBody(failure, requestID: Transcript.context.requestID)
            return Reply(file: "response.json", text: Self.text(dialect.status(of: failure), error))
        }
        return Reply(file: "response.json", text: Self.text(200, whole ?? nil))
    }

    private static func text(_ status: Int, _ body: JSONValue) -> String {
        "{\"status\":\(status),\"body\":\(DialectsTests.text(body))}\n"
    }
}

extension ModelCatalog {
    /// The catalog of the recorded CLI.
    static func recorded() throws -> ModelCatalog {
        let line = try JSONParser.parse(Transcript(name: "initialize").bytes("cli.stdout.jsonl"))
        return ModelCatalog(initializeResponse: try #require(line["response"]?["response"]))
    }
}
