extension TokenUsage {
    /// `usage` of chat and text completions.
    var completionsJSON: JSONValue {
        [
            "prompt_tokens": .integer(prompt), "completion_tokens": .integer(output), "total_tokens": .integer(total),
            "prompt_tokens_details": ["cached_tokens": .integer(cacheRead), "audio_tokens": 0],
            "completion_tokens_details": [
                "reasoning_tokens": .integer(thinking), "audio_tokens": 0, "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            ],
        ]
    }
}
