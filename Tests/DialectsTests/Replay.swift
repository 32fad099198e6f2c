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
    /// What `/v1/responses` was asked.
    private var asked: ResponsesRequest?
    /// What a text completion begins with.
    private var prompt = ""
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
                stream = ChatCompletionsStream(context: Transcript.context, options: request.reply)
            }
        case "/v1/completions":
            dialect = .openAI
            request = try #require(CompletionsRequest.decode(body).first)
            let text = request.turns.last?.blocks.first?["text"]?.stringValue ?? ""
            prompt = request.reply.echoesPrompt ? text : ""
            if request.isStreaming {
                stream = CompletionsStream(context: Transcript.context, options: request.reply, prompts: [prompt])
            }
        case "/v1/responses":
            dialect = .openAI
            var decoded = try ResponsesRequest.decode(body)
            try decoded.finish()
            request = decoded.run
            asked = decoded
            if request.isStreaming {
                stream = ResponsesStream(
                    request: decoded, context: Transcript.context, id: Transcript.responseID,
                    now: { Transcript.context.created })
            }
        case "/v1/messages/count_tokens":
            dialect = .anthropic
            request = try MessagesRequest.decodeCount(body)
        case "/v1/messages":
            dialect = .anthropic
            var chat = try MessagesRequest.decode(body)
            chat.hostTools = try transcript.hostTools()
            request = chat
            if request.isStreaming { stream = MessagesStream() }
        default:
            dialect = .direct
            request = try DirectRequest.decode(body, policy: Transcript.policy)
            if request.isStreaming { stream = DirectStream(context: Transcript.directContext) { .zero } }
        }
        let catalog = try ModelCatalog.recorded()
        let model = try request.model.map { try catalog.resolve($0) }
        conversation = ClaudeConversation(request, model: model, resolvedModel: catalog.fullID(of: model))
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
            if !body.isEmpty {
                stream?.encode(failure: error, requestID: Transcript.context.requestID, into: &body)
            }
            return
        }
        answer.append(event)
        stream?.encode(event, into: &body)
        guard stream == nil else { return }
        switch (event, path) {
        case (.answered, "/v1/chat/completions"):
            whole = ChatCompletionsReply.whole([answer], options: request.reply, context: Transcript.context)
        case (.answered, "/v1/completions"):
            whole = CompletionsReply.whole([answer], prompts: [prompt], context: Transcript.context)
        case (.answered, "/v1/responses"):
            whole = asked.map {
                ResponsesReply.whole(
                    answer, request: $0, context: Transcript.context, id: Transcript.responseID,
                    completedAt: Transcript.context.created)
            }
        case (.answered, "/v1/messages"): whole = MessagesReply.whole(answer)
        case (.answered, "/v1/messages/count_tokens"): whole = MessagesReply.count(answer)
        case (.answered, "/api/run"):
            whole = DirectReply.whole(answer, context: Transcript.directContext, duration: .zero)
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
