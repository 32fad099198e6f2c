// Every tool call has its result in the next message, before anything else, and every result its call.
//
// Neighbours of one role are one message, as in the API, and the CLI's messages of role `system` stand between the others
// without parting them.

import Dialects

/// Refuses tool calls and results that do not pair up.
enum CallRules {
    private struct Block {
        /// Where it stands: `messages.2.content.0`.
        let place: String
        let value: JSONValue
    }

    private struct Message {
        let role: String
        /// The index of its first part.
        let index: Int
        var blocks: [Block]

        func ids(of type: String, _ key: String) -> [String] {
            blocks.filter { $0.value["type"]?.stringValue == type }.compactMap { $0.value[key]?.stringValue }
        }
    }

    /// Checks a conversation whose blocks are valid one by one.
    static func check(_ messages: [JSONValue]) throws(UpstreamError) {
        var pending: [String] = []
        var pendingIndex = 0
        var seen: Set<String> = []
        for message in joined(messages) {
            if message.role == "assistant" {
                pending = message.ids(of: "tool_use", "id")
                pendingIndex = message.index
                for block in message.blocks where block.value["type"] == "tool_use" {
                    if !seen.insert(block.value["id"]?.stringValue ?? "").inserted {
                        throw .invalid("\(block.place): `tool_use` ids must be unique")
                    }
                }
            } else {
                try checkResults(of: message, pending: pending, from: pendingIndex)
                pending = []
            }
        }
        if !pending.isEmpty { throw unanswered(pending, in: pendingIndex) }
    }

    private static func checkResults(
        of message: Message, pending: [String], from index: Int
    ) throws(UpstreamError) {
        for block in message.blocks where block.value["type"] == "tool_result" {
            let id = block.value["tool_use_id"]?.stringValue ?? ""
            if !pending.contains(id) {
                throw .invalid(
                    "\(block.place): unexpected `tool_use_id` found in `tool_result` blocks: \(id). Each `tool_result` "
                        + "block must have a corresponding `tool_use` block in the previous message.")
            }
        }
        let results = message.ids(of: "tool_result", "tool_use_id")
        for (number, id) in results.enumerated() where results[..<number].contains(id) {
            throw .invalid(
                "each tool_use must have a single result. Found multiple `tool_result` blocks with id: \(id)")
        }
        let first = message.blocks.prefix { $0.value["type"] == "tool_result" }.compactMap {
            $0.value["tool_use_id"]?.stringValue
        }
        let missing = pending.filter { !first.contains($0) }
        if !missing.isEmpty { throw unanswered(missing, in: index) }
    }

    private static func unanswered(_ ids: [String], in index: Int) -> UpstreamError {
        .invalid(
            "messages.\(index): `tool_use` ids were found without `tool_result` blocks immediately after: "
                + "\(ids.joined(separator: ", ")). Each `tool_use` block must have a corresponding `tool_result` block "
                + "in the next message.")
    }

    private static func joined(_ messages: [JSONValue]) -> [Message] {
        var joined: [Message] = []
        for (index, message) in messages.enumerated() {
            guard let role = message["role"]?.stringValue, role != "system" else { continue }
            let values = message["content"]?.arrayValue ?? [["type": "text"]]
            let blocks = values.enumerated().map {
                Block(place: "messages.\(index).content.\($0.offset)", value: $0.element)
            }
            if joined.last?.role == role {
                joined[joined.count - 1].blocks += blocks
            } else {
                joined.append(Message(role: role, index: index, blocks: blocks))
            }
        }
        return joined
    }
}
