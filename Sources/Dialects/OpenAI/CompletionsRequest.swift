/// Decodes `POST /v1/completions`, the text completions that came before chats.
public enum CompletionsRequest {
    private static let used: Set<String> = [
        "model", "prompt", "stream", "stream_options", "max_tokens", "n", "stop", "echo", "best_of",
    ]

    /// The requests, one a prompt; each is answered `choiceCount` times.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func decode(_ json: JSONValue) throws(APIError) -> [RunRequest] {
        let fields = try FieldReader(json, path: "")
        try OpenAIParameters.checkIgnored(fields)
        let count = try fields.positiveInteger("n") ?? 1
        try refuseUnserved(fields, choiceCount: count)
        var request = RunRequest(
            model: try fields.string("model"), turns: [], maxOutputTokens: try fields.positiveInteger("max_tokens"),
            isStreaming: try fields.bool("stream") ?? false,
            ignoredParameters: fields.names.filter { !used.contains($0) })
        request.thinking = .off
        request.choiceCount = count
        request.stopSequences = try OpenAIParameters.stop(fields)
        request.reply.includesUsage = try OpenAIParameters.includesUsage(fields)
        request.reply.echoesPrompt = try fields.bool("echo") ?? false
        var requests: [RunRequest] = []
        for (prompt, path) in try prompts(fields) {
            guard !prompt.isBlank else { throw .invalid(path, "`\(path)` has no text. Send some.") }
            var one = request
            one.append(.user, [RunRequest.Turn.text(prompt)])
            requests.append(one)
        }
        return requests
    }

    private static func prompts(_ fields: FieldReader) throws(APIError) -> [(text: String, path: String)] {
        let prompt = try fields.required("prompt")
        if let text = prompt.stringValue { return [(text, "prompt")] }
        guard let texts = prompt.arrayValue?.compactMap(\.stringValue), texts.count == prompt.arrayValue?.count,
            !texts.isEmpty
        else {
            throw .invalid(
                "prompt", "`prompt` must be a string or an array of strings; token numbers are not read here.")
        }
        return texts.enumerated().map { ($1, "prompt[\($0)]") }
    }

    private static func refuseUnserved(_ fields: FieldReader, choiceCount: Int) throws(APIError) {
        if let best = try fields.positiveInteger("best_of"), best > choiceCount {
            throw .invalid("best_of", "`best_of` must not exceed `n`: answers are not compared here.")
        }
        if fields.value("suffix") != nil {
            throw .invalid("suffix", "`suffix`: text can't be filled in here. Ask for it in the prompt.")
        }
        if let number = try fields.integer("logprobs"), number > 0 {
            throw .invalid("logprobs", "`logprobs`: the Claude Code CLI gives no probabilities. Leave it out.")
        }
    }
}
