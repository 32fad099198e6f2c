import Dialects
import Testing

@testable import OfflineUpstream

/// Which tools an answer calls, first and after their results.
@Suite struct ToolCallTests {
    private static let tools: JSONValue = [
        [
            "name": "get",
            "input_schema": [
                "type": "object", "properties": ["city": ["type": "string"], "days": ["type": "integer"]],
                "required": ["city"],
            ],
        ],
        ["name": "set", "input_schema": ["type": "object"]],
    ]
    private static let output: JSONValue = [
        "name": "StructuredOutput",
        "input_schema": [
            "type": "object", "required": ["a", "b"],
            "properties": ["a": ["type": "integer"], "b": ["type": "string"]],
        ],
    ]

    private static let choices: [(String, JSONValue, String)] = [
        ("hi", ["type": "auto"], "canned"), ("hi", ["type": "none"], "canned"),
        ("hi", ["type": "any"], #"get{"city":"x"}"#), ("hi", ["type": "tool", "name": "set"], "set{}"),
        ("[[tool=get {}]]", ["type": "none"], "canned"), ("[[say=a]][[tool=get]]", ["type": "none"], "text=a"),
        ("[[tool=set {\"a\":1}]]", ["type": "any"], #"set{"a":1}"#),
        ("[[say=a]]", ["type": "any"], #"text=a get{"city":"x"}"#),
        ("[[tool=other]]", ["type": "auto"], "other{}"), ("[[tool=get]][[tool=set]]", ["type": "auto"], "get{} set{}"),
        ("[[tool=get]][[tool=set]]", ["type": "auto", "disable_parallel_tool_use": true], "get{}"),
        ("[[tool=get]][[tool=set]]", ["type": "any", "disable_parallel_tool_use": true], "get{}"),
    ]

    @Test(arguments: choices)
    func `tool_choice forbids and forces calls`(prompt: String, choice: JSONValue, content: String) throws {
        let message = try Support.plan(prompt, ["tools": Self.tools, "tool_choice": choice]).message
        #expect(Support.summary(message) == content)
        #expect((message["stop_reason"] == "tool_use") == content.contains("{"))
    }

    @Test func `a tool without a schema is called with an empty input`() throws {
        let tools: JSONValue = [["type": "web_search_20250305", "name": "web_search"]]
        let message = try Support.plan("hi", ["tools": tools, "tool_choice": ["type": "any"]]).message
        #expect(Support.summary(message) == "web_search{}")
    }

    private static let outputs: [(String, String)] = [
        ("hi", #"StructuredOutput{"a":1,"b":"x"}"#), ("[[json={\"z\":[[1]]}]]", #"StructuredOutput{"z":[[1]]}"#),
        ("[[json_bad=1]]", #"StructuredOutput{"__invalid__":1,"b":{"__invalid__":1}}"#),
        ("[[say=no]]", "text=no"), ("[[say=no]][[json={}]]", "text=no"), ("[[echo]]", "text=[[echo]]"),
        ("[[tokens=1]]", "text=tok0 "), ("[[tool=get]]", "get{}"), ("[[tool=get]][[json={}]]", "get{}"),
        ("[[cite=c]]", "cite=c"), ("[[cut=1]]", "text=tok0 "),
    ]

    @Test(arguments: outputs)
    func `where a structured output is on offer it is the answer`(prompt: String, content: String) throws {
        #expect(Support.summary(try Support.plan(prompt, ["tools": [Self.output]]).message) == content)
    }

    @Test func `without the tool, JSON that was ordered is text`() throws {
        #expect(Support.summary(try Support.plan(#"[[json={"a":1}]]"#).message) == #"text={"a":1}"#)
        #expect(Support.summary(try Support.plan("[[json_bad=1]]").message) == "canned")
    }

    /// Plays a prompt as the CLI does: calls get results, an answer without the structured output is reminded of it once.
    ///
    /// - Parameter errors: How many of the first results are errors.
    private func play(_ prompt: String, tools: JSONValue, errors: Int = 0) throws -> [String] {
        var messages: [JSONValue] = [["role": "user", "content": .string(prompt)]]
        var answers: [String] = []
        var isReminderDue = tools.arrayValue?.contains(Self.output) ?? false
        while answers.count < 9 {
            messages.append(["role": "system", "content": "# Environment"])
            let body = Support.body(messages: .array(messages), ["tools": tools])
            let request = try UpstreamRequest(body, needsMaxTokens: true)
            let plan = AnswerPlan(request, Directives(turn: request.turn), unique: "\(answers.count)")
            let isError = answers.count < errors
            answers.append(Support.summary(plan.message))
            let content = plan.message["content"]?.arrayValue ?? []
            messages.append(["role": "assistant", "content": .array(content)])
            let calls = content.filter { $0["type"] == "tool_use" }
            if calls.isEmpty {
                if !isReminderDue { break }
                isReminderDue = false
                messages.append(["role": "user", "content": "[structured-output-enforce] You MUST call it."])
                continue
            }
            if !isError, calls.contains(where: { $0["name"] == "StructuredOutput" }) { break }
            let results = calls.map { call -> JSONValue in
                [
                    "type": "tool_result", "tool_use_id": call["id"] ?? nil, "content": "[[say=never]]",
                    "is_error": .bool(isError),
                ]
            }
            let reminder: JSONValue = ["type": "text", "text": "<system-reminder>x</system-reminder>"]
            messages.append(["role": "user", "content": .array(results + [reminder])])
        }
        return answers
    }

    @Test func `a structured output that was accepted is not sent again`() throws {
        let messages: JSONValue = [
            ["role": "user", "content": "[[json={}]]"],
            [
                "role": "assistant",
                "content": [["type": "tool_use", "id": "a", "name": "StructuredOutput", "input": [:]]],
            ],
            ["role": "user", "content": [["type": "tool_result", "tool_use_id": "a", "content": "ok"]]],
        ]
        let body = Support.body(messages: messages, ["tools": [Self.output]])
        #expect(Support.summary(try Support.plan(body).message) == "canned")
    }

    private static let later: [(String, [String])] = [
        ("[[tool=get]]", ["get{}", "canned"]), ("[[tool=get]][[then=Sunny.]]", ["get{}", "text=Sunny."]),
        ("[[tool=get]][[then_tool=set {\"a\":1}]]", ["get{}", #"set{"a":1}"#, "canned"]),
        ("[[tool=get]][[then_tool=set]][[then_tool=get]][[then=ok]]", ["get{}", "set{} get{}", "text=ok"]),
        ("[[say=a]][[then=b]]", ["text=a"]), ("[[tool=get]][[json={\"a\":1}]]", ["get{}", #"text={"a":1}"#]),
    ]

    @Test(arguments: later)
    func `the answer to a tool's results was ordered with it`(prompt: String, answers: [String]) throws {
        #expect(try play(prompt, tools: Self.tools) == answers)
    }

    private static let misfit = #"StructuredOutput{"__invalid__":1,"b":{"__invalid__":1}}"#
    /// Prompt, how many of the first results are errors, and the answers.
    private static let enforced: [(String, Int, [String])] = [
        ("[[say=no]]", 0, ["text=no", #"StructuredOutput{"a":1,"b":"x"}"#]),
        ("[[say=no]][[json={\"a\":7}]]", 0, ["text=no", #"StructuredOutput{"a":7}"#]),
        ("[[json_bad=2]]", 2, [misfit, misfit, #"StructuredOutput{"a":1,"b":"x"}"#]),
        ("[[json_bad=1]][[json={}]][[then=ok]]", 1, [misfit, "text=ok", "StructuredOutput{}"]),
        ("[[say=no]][[json_bad=1]]", 2, ["text=no", misfit, #"StructuredOutput{"a":1,"b":"x"}"#]),
        ("[[tool=get]][[json={\"a\":7}]]", 0, ["get{}", #"StructuredOutput{"a":7}"#]),
    ]

    @Test(arguments: enforced)
    func `a structured output comes in the end`(prompt: String, errors: Int, answers: [String]) throws {
        #expect(try play(prompt, tools: [Self.output], errors: errors) == answers)
    }
}
