import Dialects
import Testing

@testable import OfflineUpstream

@Suite struct RequestRulesTests {
    private static let tool = #"{"name":"t","input_schema":{"type":"object"}}"#
    private static let marked = #"{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}"#

    /// Members of the body, and what the refusal says; nil for what is taken.
    private static let requests: [(String, String?)] = [
        (#"{"max_tokens":0}"#, "max_tokens: Input should be greater than or equal to 1"),
        (#"{"stop_sequences":["END"," x"]}"#, nil), (#"{"stop_sequences":null}"#, nil),
        (#"{"stop_sequences":["a"," \n"]}"#, "stop_sequences: each stop sequence must contain non-whitespace"),
        (#"{"stop_sequences":[""]}"#, "stop_sequences: each stop sequence must contain non-whitespace"),
        (#"{"stop_sequences":"a"}"#, "stop_sequences: Input should be a valid array"),
        (#"{"stop_sequences":[1]}"#, "stop_sequences.0: Input should be a valid string"),
        (#"{"tools":[\#(tool)]}"#, nil), (#"{"tools":[]}"#, nil),
        (#"{"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#, nil),
        (#"{"tools":[\#(tool),\#(tool)]}"#, "tools: Tool names must be unique."),
        (
            #"{"tools":[\#(tool),{"name":"a.b","input_schema":{"type":"object"}}]}"#,
            "tools.1.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"
        ),
        (
            #"{"tools":[{"name":"\#(String(repeating: "n", count: 129))","input_schema":{"type":"object"}}]}"#,
            "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"
        ),
        (#"{"tools":[{"input_schema":{}}]}"#, "tools.0.custom.name: Field required"),
        (#"{"tools":[{"name":"t"}]}"#, "tools.0.custom.input_schema: Field required"),
        (#"{"tools":[{"name":"t","input_schema":{}}]}"#, "tools.0.custom.input_schema.type: Field required"),
        (
            #"{"tools":[{"name":"t","input_schema":{"type":"array"}}]}"#,
            "tools.0.custom.input_schema.type: Input should be 'object'"
        ),
        (
            #"{"tools":[{"name":"t","input_schema":{"type":"object","anyOf":[]}}]}"#,
            "tools.0.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level"
        ),
        (#"{"tools":[\#(tool)],"tool_choice":{"type":"tool","name":"t"}}"#, nil),
        (
            #"{"tool_choice":{"type":"auto"}}"#,
            "tool_choice: `tool_choice` may only be specified while providing `tools`"
        ),
        (#"{"tools":[\#(tool)],"tool_choice":{"type":"tool","name":"u"}}"#, "Tool 'u' not found in provided tools"),
        (#"{"tools":[\#(tool)],"tool_choice":{"type":"tool"}}"#, "tool_choice.tool.name: Field required"),
        (
            #"{"tools":[\#(tool)],"tool_choice":"any"}"#,
            "tool_choice: Input should have the 'type' 'auto', 'any', 'tool' or 'none'"
        ),
        (#"{"tools":[\#(tool)],"tool_choice":{"type":"auto"},"thinking":{"type":"adaptive"}}"#, nil),
        (#"{"tools":[\#(tool)],"tool_choice":{"type":"any"},"thinking":{"type":"disabled"}}"#, nil),
        (
            #"{"tools":[\#(tool)],"tool_choice":{"type":"any"},"thinking":{"type":"adaptive"}}"#,
            "Thinking may not be enabled when tool_choice forces tool use."
        ),
        (
            #"{"max_tokens":2000,"tools":[\#(tool)],"tool_choice":{"type":"tool","name":"t"},"thinking":{"type":"enabled","budget_tokens":1024}}"#,
            "Thinking may not be enabled when tool_choice forces tool use."
        ),
        (#"{"temperature":0.5,"top_p":0.5,"top_k":5}"#, nil),
        (#"{"temperature":1,"top_p":0.95,"thinking":{"type":"adaptive"}}"#, nil),
        (
            #"{"temperature":0.5,"thinking":{"type":"adaptive"}}"#,
            "`temperature` may only be set to 1 when thinking is enabled."
        ),
        (
            #"{"top_p":0.5,"thinking":{"type":"adaptive"}}"#,
            "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled."
        ),
        (#"{"top_k":5,"thinking":{"type":"adaptive"}}"#, "`top_k` must be unset when thinking is enabled."),
        (#"{"max_tokens":1025,"thinking":{"type":"enabled","budget_tokens":1024}}"#, nil),
        (
            #"{"max_tokens":1024,"thinking":{"type":"enabled","budget_tokens":1024}}"#,
            "`max_tokens` must be greater than `thinking.budget_tokens`."
        ),
        (
            #"{"thinking":{"type":"enabled","budget_tokens":1000}}"#,
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        ),
        (#"{"thinking":{"type":"enabled"}}"#, "thinking.enabled.budget_tokens: Field required"),
        (#"{"thinking":{"type":"on"}}"#, "thinking: Input should have the 'type' 'enabled', 'disabled' or 'adaptive'"),
        (
            #"{"context_management":{"edits":[{"type":"clear_thinking_20251015"}]}}"#,
            "`clear_thinking_20251015` strategy requires `thinking` to be enabled or adaptive"
        ),
        (
            #"{"context_management":{"edits":[{"type":"clear_thinking_20251015"}]},"thinking":{"type":"adaptive"}}"#,
            nil
        ),
        (#"{"system":[{"type":"text","text":""}]}"#, "system: text content blocks must be non-empty"),
        (#"{"system":[\#(marked),\#(marked),\#(marked),\#(marked)]}"#, nil),
        (
            #"{"system":[\#(marked),\#(marked)],"messages":[{"role":"user","content":[\#(marked)]}],"tools":[{"name":"t","input_schema":{"type":"object","properties":{"cache_control":{}}},"cache_control":{"type":"ephemeral"}}]}"#,
            nil
        ),
        (
            #"{"system":[\#(marked),\#(marked),\#(marked)],"messages":[{"role":"user","content":[\#(marked)]}],"tools":[{"name":"t","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}]}"#,
            "A maximum of 4 blocks with cache_control may be provided. Found 5."
        ),
    ]

    @Test(arguments: requests)
    func `the API's rules hold`(members: String, refusal: String?) throws {
        let body = Support.body("hi", try Support.json(members))
        do throws(UpstreamError) {
            _ = try UpstreamRequest(body, needsMaxTokens: true)
            #expect(refusal == nil)
        } catch {
            #expect(error == .invalid(refusal ?? "nothing"))
        }
    }

    @Test func `tokens are counted of valid requests without max_tokens`() throws {
        let body: JSONValue = [
            "model": "m", "messages": [["role": "user", "content": "hi"]],
            "thinking": ["type": "enabled", "budget_tokens": 1024],
        ]
        #expect(try UpstreamRequest(body, needsMaxTokens: false).inputTokens == 1)
    }
}
