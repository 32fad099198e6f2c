/// Parameters that OpenAI's APIs have in common.
enum OpenAIParameters {
    /// Parameters that are checked, accepted and change nothing.
    private static let ignoredNumbers: [(name: String, range: ClosedRange<Double>)] = [
        ("temperature", 0...2), ("top_p", 0...1), ("frequency_penalty", -2...2), ("presence_penalty", -2...2),
    ]

    /// Checks the type of what will be ignored: a client's slip is told also where it would do no harm.
    static func checkIgnored(_ fields: FieldReader) throws(APIError) {
        for (name, range) in ignoredNumbers { _ = try fields.number(name, in: range) }
        for name in ["user", "service_tier", "safety_identifier", "prompt_cache_key"] { _ = try fields.string(name) }
        _ = try fields.bool("store")
        for name in ["seed", "top_logprobs"] { _ = try fields.integer(name) }
        for name in ["metadata", "logit_bias"] { _ = try fields.object(name) }
    }

    /// `stream_options.include_usage`.
    static func includesUsage(_ fields: FieldReader) throws(APIError) -> Bool {
        guard let options = fields.value("stream_options") else { return false }
        return try FieldReader(options, path: "stream_options").bool("include_usage") ?? false
    }

    /// `stop`: a string or up to four.
    static func stop(_ fields: FieldReader) throws(APIError) -> [String] {
        guard let stop = fields.value("stop") else { return [] }
        var words: [String] = []
        if let word = stop.stringValue { words = [word] } else { words = try fields.strings("stop") ?? [] }
        guard words.count <= 4 else {
            throw .invalid("stop", "`stop` must have at most 4 strings, not \(words.count).")
        }
        guard words.allSatisfy({ !$0.isEmpty && $0.utf8.count <= 1000 }) else {
            throw .invalid("stop", "`stop`: each string must have 1 to 1000 bytes.")
        }
        return words
    }

    /// An effort in the CLI's words; `none` for no thinking.
    static func effort(_ fields: FieldReader, _ key: String) throws(APIError) -> String? {
        let effort = try fields.choice(key, of: ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
        return effort == "minimal" ? "low" : effort
    }
}
