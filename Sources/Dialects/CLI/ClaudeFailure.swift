/// Reads the CLI's report of a failed turn: a `result` line with `is_error`.
enum ClaudeFailure {
    /// The failure as a caller should see it.
    ///
    /// The upstream's status decides where the CLI gives it (`api_error_status`); without one, its words do. The words go
    /// to the caller only for faults of the request itself; the rest name the operator's affairs and go to the log.
    static func error(result line: JSONValue, model: String?) -> APIError {
        let words = String((line["result"]?.stringValue ?? "").prefix(2000))
        let subtype = line["subtype"]?.stringValue ?? ""
        let cause = "status \(line["api_error_status"]?.intValue ?? 0), \(subtype): \(words.prefix(300))"
        switch line["api_error_status"]?.intValue {
        case 400, 422:
            return APIError(
                .invalidRequest, "The upstream API refused the request: \(withoutPrefix(words))",
                // The upstream's words may quote the caller's: they go to the caller alone.
                cause: "status \(line["api_error_status"]?.intValue ?? 0)")
        case 401, 403:
            return upstreamAuth(cause)
        case 404:
            return APIError(
                .modelNotFound,
                "The model \(model.map { "`\($0)`" } ?? "of this service") does not exist upstream or is not open "
                    + "to this service. GET /v1/models lists what is served.",
                parameter: "model", cause: cause)
        case 413:
            return APIError(
                .requestTooLarge, "The upstream API says the request is too large. Send less.", cause: cause)
        case 429:
            return APIError(
                .rateLimit, "The upstream API limits this service's account. Try again later.", retryAfterSeconds: 30,
                cause: cause)
        case 503, 529:
            return APIError(
                .overloaded, "The upstream API is overloaded. Try again later.", retryAfterSeconds: 10, cause: cause)
        case .some:
            return APIError(.upstream, "The upstream API failed. Try again.", cause: cause)
        case nil:
            if words.contains("/login") || words.contains("API key") || words.contains("OAuth") {
                return upstreamAuth(cause)
            }
            if words.hasPrefix("Prompt is too long") {
                return APIError(
                    .invalidRequest, "The prompt is longer than the model's context. Send less.", cause: cause)
            }
            if words.hasPrefix("API Error") {
                return APIError(.upstream, "The upstream API could not be reached or failed. Try again.", cause: cause)
            }
            return APIError(
                .cli, "The Claude Code CLI reported a failure. The server's log has the details.", cause: cause)
        }
    }

    private static func upstreamAuth(_ cause: String) -> APIError {
        APIError(
            .upstreamAuth,
            "The service itself is not logged in to its upstream API. Its operator sees more in `claude-fcgi "
                + "check`; the key of this request is fine.",
            cause: cause)
    }

    /// `API Error: 400 {"type":"error","error":{…,"message":"M"}}` becomes `M`.
    private static func withoutPrefix(_ words: String) -> String {
        var text = Substring(words)
        if text.hasPrefix("API Error: ") { text = text.dropFirst("API Error: ".count) }
        if let brace = text.firstIndex(of: "{"), let json = try? JSONParser.parse(Array(text[brace...].utf8)),
            let message = json["error"]?["message"]?.stringValue
        {
            return message
        }
        if let digits = text.firstIndex(of: " "), Int(text[..<digits]) != nil { text = text[digits...].dropFirst() }
        return String(text)
    }
}
