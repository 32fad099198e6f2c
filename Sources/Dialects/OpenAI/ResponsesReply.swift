/// Where a response stands, in the vendor's words.
public enum ResponsesStatus: String, Sendable, CaseIterable {
    /// It waits for a place to run.
    case queued
    /// It runs.
    case inProgress = "in_progress"
    /// It is whole.
    case completed
    /// It ended early.
    case incomplete
    /// It ended by an error.
    case failed
    /// The caller ended it.
    case cancelled
}

/// Writes the response object.
public enum ResponsesReply {
    /// The response with its whole answer.
    ///
    /// - Parameters:
    ///   - id: The response's id, `resp_…`.
    ///   - completedAt: When the answer was whole, in seconds since 1970.
    public static func whole(
        _ answer: Answer, request: ResponsesRequest, context: ReplyContext, id: String, completedAt: Int
    ) -> JSONValue {
        let reason = cutReason(answer.stopReason)
        let output = ResponsesOutput(request).items(
            answer, unique: OpenAIIdentifier.unique(answer.id, context), isCut: reason != nil)
        return object(
            reason == nil ? .completed : .incomplete, request: request, context: context, id: id,
            completedAt: reason == nil ? completedAt : nil, incompleteReason: reason, model: answer.model,
            output: output, usage: answer.usage.responsesJSON)
    }

    /// The response before its answer is whole, or without one.
    ///
    /// - Parameters:
    ///   - error: Why it failed.
    ///   - model: The model that answers, once that is known.
    ///   - output: The items that are whole.
    public static func state(
        _ status: ResponsesStatus, error: APIError? = nil, request: ResponsesRequest, context: ReplyContext, id: String,
        model: String = "", output: [JSONValue] = []
    ) -> JSONValue {
        object(
            status, request: request, context: context, id: id, error: error.map(errorJSON), model: model,
            output: output)
    }

    /// A stored response in a new state.
    public static func changed(_ response: JSONValue, to status: ResponsesStatus, error: APIError? = nil) -> JSONValue {
        guard var object = response.objectValue else { return response }
        object["status"] = .string(status.rawValue)
        if let error { object["error"] = errorJSON(error) }
        return .object(object)
    }

    /// What an error is called in a response object.
    static func errorJSON(_ error: APIError) -> JSONValue {
        let code =
            switch error.kind {
            case .rateLimit, .queueFull, .sessionLimitReached: "rate_limit_exceeded"
            case .invalidRequest, .requestTooLarge: "invalid_prompt"
            default: "server_error"
            }
        return ["code": .string(code), "message": .string(error.message)]
    }

    /// An id without its prefix.
    static func unique(_ id: String) -> String {
        id.hasPrefix("resp_") ? String(id.dropFirst(5)) : id
    }

    /// Why an answer is not whole; nil for one that is.
    static func cutReason(_ reason: StopReason) -> String? {
        switch reason.openAIName {
        case "length": "max_output_tokens"
        case "content_filter": "content_filter"
        default: nil
        }
    }

    private static func object(
        _ status: ResponsesStatus, request: ResponsesRequest, context: ReplyContext, id: String,
        completedAt: Int? = nil, error: JSONValue? = nil, incompleteReason: String? = nil, model: String,
        output: [JSONValue], usage: JSONValue = .null
    ) -> JSONValue {
        let head = JSONObject([
            ("id", .string(id)), ("object", "response"), ("created_at", .integer(context.created)),
            ("status", .string(status.rawValue)), ("completed_at", completedAt.map { .integer($0) } ?? .null),
            ("error", error ?? .null),
            ("incomplete_details", incompleteReason.map { ["reason": .string($0)] } ?? .null),
            ("model", .string(model.isEmpty ? request.run.model ?? "" : model)), ("output", .array(output)),
        ])
        return .object(
            JSONObject(
                head.members + request.echo.members + [JSONObject.Member(key: "usage", value: usage)]))
    }
}

extension TokenUsage {
    /// `usage` of a response.
    var responsesJSON: JSONValue {
        [
            "input_tokens": .integer(prompt),
            "input_tokens_details": [
                "cached_tokens": .integer(cacheRead), "cache_write_tokens": .integer(cacheCreation),
            ],
            "output_tokens": .integer(output), "output_tokens_details": ["reasoning_tokens": .integer(thinking)],
            "total_tokens": .integer(total),
        ]
    }
}
