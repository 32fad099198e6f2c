// Which text's directives hold for an answer.
//
// Mostly it is the text of the last user message. A message that brings tool results only, and the CLI's reminder that an
// answer in a schema is due, have no text of their own: there the newest text before them counts, but only the directives
// that are about what comes later (`then`, `json`, …), so that a directive that called a tool does not fire again. Nothing
// is remembered between requests: a conversation that is sent again gets the same answer.

import Dialects

/// What the last message of a conversation asks for.
struct Turn: Sendable, Equatable {
    /// Where an answer stands in what one text ordered.
    enum Kind: Sendable, Equatable {
        /// A user's text.
        case prompt
        /// Tool results, and reminders at most.
        case toolResults
        /// The CLI's reminder to call the tool ``UpstreamRequest/outputTool``.
        case outputReminder
    }

    /// Where this answer stands.
    let kind: Kind
    /// The text of the last message of role `user`, without the reminders that the CLI puts beside it.
    let prompt: String
    /// The text whose directives count: the prompt, or the newest one before.
    let order: String
    /// How many answers there have been since that text.
    let answers: Int
    /// How many of their tool calls were structured outputs.
    let outputs: Int
    /// Whether the last message accepts a structured output.
    let isOutputAccepted: Bool

    /// Reads a conversation, which need not be valid.
    init(_ messages: [JSONValue]) {
        let last = messages.lastIndex { $0["role"] == "user" }
        prompt = last.map { Self.text(of: messages[$0]) } ?? ""
        let blocks = last.flatMap { messages[$0]["content"]?.arrayValue } ?? []
        if Self.isOutputReminder(prompt) {
            kind = .outputReminder
        } else if prompt.isEmpty, blocks.contains(where: { $0["type"] == "tool_result" }) {
            kind = .toolResults
        } else {
            kind = .prompt
        }
        guard kind != .prompt, let last else {
            order = prompt
            (answers, outputs, isOutputAccepted) = (0, 0, false)
            return
        }
        let ordering = messages[..<last].lastIndex { message in
            guard message["role"] == "user" else { return false }
            let text = Self.text(of: message)
            return !text.isEmpty && !Self.isOutputReminder(text)
        }
        order = ordering.map { Self.text(of: messages[$0]) } ?? ""
        let since = messages[(ordering.map { $0 + 1 } ?? 0)...]
        let calls = Self.outputCalls(in: since)
        answers = Self.answers(in: since)
        outputs = calls.count
        isOutputAccepted = blocks.contains { block in
            block["type"] == "tool_result" && block["is_error"] != true
                && calls.contains { $0["id"] == block["tool_use_id"] }
        }
    }

    /// The number of runs of assistant messages: the API takes neighbours for one message.
    private static func answers(in messages: ArraySlice<JSONValue>) -> Int {
        let roles = messages.map { $0["role"] }.filter { $0 != "system" }
        return roles.indices.count { roles[$0] == "assistant" && ($0 == 0 || roles[$0 - 1] != "assistant") }
    }

    private static func outputCalls(in messages: ArraySlice<JSONValue>) -> [JSONValue] {
        let answers = messages.filter { $0["role"] == "assistant" }
        return answers.flatMap { $0["content"]?.arrayValue ?? [] }.filter { block in
            block["type"] == "tool_use" && block["name"]?.stringValue == UpstreamRequest.outputTool
        }
    }

    private static func text(of message: JSONValue) -> String {
        if let text = message["content"]?.stringValue { return text }
        let texts = message["content"]?.arrayValue?.compactMap { block in
            block["type"] == "text" ? block["text"]?.stringValue : nil
        }
        return texts?.filter { !isReminder($0) }.joined() ?? ""
    }

    /// Whether a text block is one of those that the CLI adds to a user's message.
    private static func isReminder(_ text: String) -> Bool { text.hasPrefix("<system-reminder>") }

    /// Whether a user's message is the CLI's, sent after an answer without the structured output.
    private static func isOutputReminder(_ text: String) -> Bool { text.hasPrefix("[structured-output-enforce]") }
}
