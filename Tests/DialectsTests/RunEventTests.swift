import Testing

@testable import Dialects

@Suite struct StopReasonTests {
    @Test(arguments: [
        ("end_turn", "end_turn", "stop"), ("max_tokens", "max_tokens", "length"),
        ("stop_sequence", "stop_sequence", "stop"), ("tool_use", "tool_use", "tool_calls"),
        ("refusal", "refusal", "content_filter"), ("pause_turn", "pause_turn", "stop"),
        ("model_context_window_exceeded", "model_context_window_exceeded", "length"), ("new_one", "new_one", "stop"),
    ])
    func `each API has its own word`(_ word: String, _ anthropic: String, _ openAI: String) {
        #expect(StopReason(word).anthropicName == anthropic)
        #expect(StopReason(word).openAIName == openAI)
    }

    @Test func `a stop sequence is told where it is known`() {
        #expect(StopReason("stop_sequence", sequence: "END").sequence == "END")
        #expect(StopReason("end_turn", sequence: "END").sequence == nil)
    }
}

@Suite struct TokenUsageTests {
    @Test(
        arguments: [
            ("{}", TokenUsage()), ("null", TokenUsage()), ("[]", TokenUsage()),
            (
                #"{"input_tokens":1,"output_tokens":2,"cache_read_input_tokens":3,"cache_creation_input_tokens":4}"#,
                TokenUsage(input: 1, output: 2, cacheRead: 3, cacheCreation: 4)
            ),
            (#"{"input_tokens":null,"output_tokens":"2"}"#, TokenUsage()),
            (#"{"output_tokens":7.0}"#, TokenUsage(output: 7)),
        ] as [(String, TokenUsage)])
    func `usage is read from the API's object`(_ text: String, _ expected: TokenUsage) throws {
        #expect(try TokenUsage(json(text)) == expected)
    }

    @Test func `what is left out stays`() throws {
        let before = TokenUsage(input: 1, output: 2, cacheRead: 3, cacheCreation: 4)
        #expect(try TokenUsage(json(#"{"output_tokens":9}"#), previous: before).output == 9)
        #expect(try TokenUsage(json(#"{"output_tokens":9}"#), previous: before).prompt == 8)
        #expect(TokenUsage(nil, previous: before) == before)
    }

    @Test func `sums never overflow`() {
        let huge = TokenUsage(input: .max, output: .max, cacheRead: .max, cacheCreation: 1)
        #expect(huge.prompt == .max)
        #expect(huge.total == .max)
    }

    @Test func `sums take every count`() {
        let one = TokenUsage(input: 1, output: 2, cacheRead: 3, cacheCreation: 4, cacheCreationHour: 5, thinking: 6)
        #expect(
            one + one
                == TokenUsage(input: 2, output: 4, cacheRead: 6, cacheCreation: 8, cacheCreationHour: 10, thinking: 12))
    }

    @Test func `each API has its own object`() {
        let usage = TokenUsage(input: 1, output: 2, cacheRead: 3, cacheCreation: 4, cacheCreationHour: 3, thinking: 1)
        #expect(
            text(usage.messagesJSON)
                == #"{"input_tokens":1,"cache_creation_input_tokens":4,"cache_read_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":3},"output_tokens":2,"service_tier":"standard"}"#
        )
        #expect(
            text(usage.messageDeltaJSON)
                == #"{"input_tokens":1,"cache_creation_input_tokens":4,"cache_read_input_tokens":3,"output_tokens":2}"#)
        #expect(
            text(usage.completionsJSON)
                == #"{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":3,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#
        )
    }
}
