// What the API refuses about `messages`: the blocks one by one here, then that calls and results pair up (CallRules).

import Dialects

/// Refuses messages that the API refuses.
enum MessageRules {
    /// Checks a conversation.
    static func check(_ messages: [JSONValue]) throws(UpstreamError) {
        for (index, message) in messages.enumerated() {
            let place = "messages.\(index)"
            let role = message["role"]?.stringValue ?? ""
            guard ["user", "assistant", "system"].contains(role) else {
                throw .invalid("\(place).role: Input should be 'user' or 'assistant'")
            }
            if index == 0, role != "user" { throw .invalid(#"messages: first message must use the "user" role"#) }
            // The CLI's: it tells the model of its surroundings in the middle of a conversation, or sets a turn's effort
            // and says nothing.
            if role == "system" { continue }
            let isLastAnswer = role == "assistant" && index == messages.count - 1
            switch message["content"] {
            case .string(let text):
                if !text.isEmpty { try checkText(text) } else if !isLastAnswer { throw emptyMessage(place) }
            case .array(let blocks):
                if blocks.isEmpty, !isLastAnswer { throw emptyMessage(place) }
                for (number, block) in blocks.enumerated() {
                    try checkBlock(block, role: role, place: "\(place).content.\(number)")
                }
            case nil: throw .invalid("\(place).content: Field required")
            default: throw .invalid("\(place).content: Input should be a valid array")
            }
        }
        try CallRules.check(messages)
    }

    private static func emptyMessage(_ place: String) -> UpstreamError {
        .invalid("\(place): all messages must have non-empty content except for the optional final assistant message")
    }

    private static func checkText(_ text: String?) throws(UpstreamError) {
        guard let text, !text.isEmpty else { throw .invalid("messages: text content blocks must be non-empty") }
        if text.allSatisfy(\.isWhitespace) {
            throw .invalid("messages: text content blocks must contain non-whitespace text")
        }
    }

    private static func checkBlock(_ block: JSONValue, role: String, place: String) throws(UpstreamError) {
        guard let type = block["type"]?.stringValue else { throw .invalid("\(place).type: Field required") }
        switch type {
        case "text": try checkText(block["text"]?.stringValue)
        case "image", "document": try checkSource(of: block, type, place: "\(place).\(type).source")
        case "tool_use":
            if role != "assistant" {
                throw .invalid("\(place): `tool_use` blocks can only be in `assistant` messages")
            }
            try checkIdentifier(block["id"], place: "\(place).tool_use.id")
            try checkIdentifier(block["name"], place: "\(place).tool_use.name")
            if block["input"]?.objectValue == nil {
                throw .invalid("\(place).tool_use.input: Input should be a valid dictionary")
            }
        case "tool_result":
            if role != "user" { throw .invalid("\(place): `tool_result` blocks can only be in `user` messages") }
            try checkIdentifier(block["tool_use_id"], place: "\(place).tool_result.tool_use_id")
            for (number, part) in (block["content"]?.arrayValue ?? []).enumerated() {
                try checkResult(part, place: "\(place).tool_result.content.\(number)")
            }
        default: break
        }
    }

    /// A part of a tool's result; blank text is a fair one.
    private static func checkResult(_ part: JSONValue, place: String) throws(UpstreamError) {
        switch part["type"]?.stringValue {
        case "text":
            if part["text"]?.stringValue?.isEmpty ?? true { try checkText(nil) }
        case "image": try checkSource(of: part, "image", place: "\(place).image.source")
        case "document": try checkSource(of: part, "document", place: "\(place).document.source")
        case nil: throw .invalid("\(place).type: Field required")
        default: break
        }
    }

    private static func checkIdentifier(_ value: JSONValue?, place: String) throws(UpstreamError) {
        guard let text = value?.stringValue else { throw .invalid("\(place): Field required") }
        if !RequestRules.isIdentifier(text) {
            throw .invalid("\(place): String should match pattern '^[a-zA-Z0-9_-]+$'")
        }
    }

    private static let mediaTypes = [
        "image": ["image/jpeg", "image/png", "image/gif", "image/webp"], "document": ["application/pdf"],
    ]

    private static func checkSource(of block: JSONValue, _ type: String, place: String) throws(UpstreamError) {
        guard let source = block["source"] else { throw .invalid("\(place): Field required") }
        switch source["type"] {
        case "base64":
            let data = source["data"]?.stringValue ?? ""
            if data.isEmpty { throw .invalid("\(place).base64: \(type) cannot be empty") }
            if !isBase64(data) { throw .invalid("\(place).base64: invalid base64 data") }
            let allowed = mediaTypes[type] ?? []
            if !allowed.contains(source["media_type"]?.stringValue ?? "") {
                let names = allowed.map { "'\($0)'" }.joined(separator: " or ")
                throw .invalid("\(place).base64.media_type: Input should be \(names)")
            }
        case "url":
            let url = source["url"]?.stringValue ?? ""
            if !url.hasPrefix("https://"), !url.hasPrefix("http://") {
                throw .invalid("\(place).url.url: Only HTTP and HTTPS URLs are supported.")
            }
        case "file", "text", "content": break
        default: throw .invalid("\(place): Input should have the 'type' 'base64', 'file', 'text' or 'url'")
        }
    }

    /// Whether a text is base64 of the standard alphabet; the padding may be missing.
    private static func isBase64(_ text: String) -> Bool {
        var count = 0
        var padding = 0
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "="): padding += 1
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "/"):
                if padding > 0 { return false }
                count += 1
            default: return false
            }
        }
        return count % 4 != 1 && (padding == 0 || padding <= 2 && (count + padding) % 4 == 0)
    }
}
