import Dialects
import Testing

@testable import OfflineUpstream

@Suite struct MessageRulesTests {
    private static func user(_ blocks: String...) -> String {
        #"{"role":"user","content":[\#(blocks.joined(separator: ","))]}"#
    }
    private static func assistant(_ blocks: String...) -> String {
        #"{"role":"assistant","content":[\#(blocks.joined(separator: ","))]}"#
    }
    private static func text(_ text: String) -> String { #"{"type":"text","text":"\#(text)"}"# }
    private static func call(_ id: String) -> String { #"{"type":"tool_use","id":"\#(id)","name":"t","input":{}}"# }
    private static func result(_ id: String, _ content: String = #""r""#) -> String {
        #"{"type":"tool_result","tool_use_id":"\#(id)","content":\#(content)}"#
    }
    private static func image(_ source: String) -> String { #"{"type":"image","source":\#(source)}"# }
    private static func base64(_ data: String, _ type: String = "image/png") -> String {
        #"{"type":"base64","media_type":"\#(type)","data":"\#(data)"}"#
    }
    private static let ask = #"{"role":"user","content":"hi"}"#
    private static let system = #"{"role":"system","content":[]}"#

    private static func unexpected(_ place: String, _ id: String) -> String {
        "\(place): unexpected `tool_use_id` found in `tool_result` blocks: \(id). Each `tool_result` block must have a "
            + "corresponding `tool_use` block in the previous message."
    }
    private static func missing(_ place: String, _ ids: String) -> String {
        "\(place): `tool_use` ids were found without `tool_result` blocks immediately after: \(ids). Each `tool_use` "
            + "block must have a corresponding `tool_result` block in the next message."
    }

    /// Messages, and what the refusal says; nil for what is taken.
    private static let shapes: [([String], String?)] = [
        ([#"{"role":"assistant","content":"a"}"#], #"messages: first message must use the "user" role"#),
        ([system, ask], #"messages: first message must use the "user" role"#),
        ([#"{"role":"tool","content":"a"}"#], "messages.0.role: Input should be 'user' or 'assistant'"),
        ([ask, system, assistant(text("a")), user(text("b"))], nil), ([ask, assistant()], nil), ([ask, ask], nil),
        ([#"{"role":"user"}"#], "messages.0.content: Field required"),
        ([#"{"role":"user","content":1}"#], "messages.0.content: Input should be a valid array"),
        (
            [#"{"role":"user","content":""}"#],
            "messages.0: all messages must have non-empty content except for the optional final assistant message"
        ),
        (
            [ask, assistant(), ask],
            "messages.1: all messages must have non-empty content except for the optional final assistant message"
        ),
        ([user(text(""))], "messages: text content blocks must be non-empty"),
        ([user(#"{"type":"text"}"#)], "messages: text content blocks must be non-empty"),
        ([user(text(" \\n"))], "messages: text content blocks must contain non-whitespace text"),
        ([user("{}")], "messages.0.content.0.type: Field required"),
    ]

    private static let sources: [([String], String?)] = [
        ([user(image(base64("iVBORw0KGgo=")))], nil), ([user(image(base64("AAAAAA")))], nil),
        ([user(image(base64("AAA%")))], "messages.0.content.0.image.source.base64: invalid base64 data"),
        ([user(image(base64("AA=A")))], "messages.0.content.0.image.source.base64: invalid base64 data"),
        ([user(image(base64("AAAAA")))], "messages.0.content.0.image.source.base64: invalid base64 data"),
        ([user(image(base64("AA===")))], "messages.0.content.0.image.source.base64: invalid base64 data"),
        (
            [user(image(base64("data:image/png;base64,AAAA")))],
            "messages.0.content.0.image.source.base64: invalid base64 data"
        ),
        ([user(image(base64("")))], "messages.0.content.0.image.source.base64: image cannot be empty"),
        (
            [user(image(base64("AAAA", "image/bmp")))],
            "messages.0.content.0.image.source.base64.media_type: Input should be 'image/jpeg' or 'image/png' or "
                + "'image/gif' or 'image/webp'"
        ),
        ([user(image(#"{"type":"url","url":"https://example.com/a.png"}"#))], nil),
        (
            [user(text("a"), image(#"{"type":"url","url":"file:///etc/passwd"}"#))],
            "messages.0.content.1.image.source.url.url: Only HTTP and HTTPS URLs are supported."
        ),
        ([user(#"{"type":"image"}"#)], "messages.0.content.0.image.source: Field required"),
        (
            [user(image(#"{"type":"path"}"#))],
            "messages.0.content.0.image.source: Input should have the 'type' 'base64', 'file', 'text' or 'url'"
        ),
        ([user(#"{"type":"document","source":\#(base64("AAAA", "application/pdf"))}"#)], nil),
        ([user(#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"a"}}"#)], nil),
        (
            [user(#"{"type":"document","source":\#(base64("AAAA"))}"#)],
            "messages.0.content.0.document.source.base64.media_type: Input should be 'application/pdf'"
        ),
        (
            [ask, assistant(call("a")), user(result("a", "[\(image(base64("?")))]"))],
            "messages.2.content.0.tool_result.content.0.image.source.base64: invalid base64 data"
        ),
        (
            [ask, assistant(call("a")), user(result("a", "[\(text(""))]"))],
            "messages: text content blocks must be non-empty"
        ),
        ([ask, assistant(call("a")), user(result("a", "[\(text(" "))]"))], nil),
    ]

    private static let calls: [([String], String?)] = [
        ([ask, assistant(text("a"), call("a"), call("b")), user(result("b"), result("a"), text("c"))], nil),
        ([ask, assistant(call("a")), system, user(result("a")), system], nil),
        ([ask, assistant(call("a")), assistant(call("b")), user(result("a")), user(result("b"))], nil),
        ([ask, assistant(call("a")), user(result("a")), assistant(call("b")), user(result("b", #""""#))], nil),
        ([user(result("X"))], unexpected("messages.0.content.0", "X")),
        ([ask, assistant(text("a")), user(result("X"))], unexpected("messages.2.content.0", "X")),
        ([ask, assistant(call("a")), user(result("a"), result("X"))], unexpected("messages.2.content.1", "X")),
        (
            [ask, assistant(call("a")), user(result("a")), assistant(text("b")), user(result("a"))],
            unexpected("messages.4.content.0", "a")
        ),
        ([ask, assistant(call("a")), user(text("b"))], missing("messages.1", "a")),
        ([ask, assistant(call("a"), call("b")), user(result("a"))], missing("messages.1", "b")),
        ([ask, assistant(call("a")), ask], missing("messages.1", "a")),
        ([ask, assistant(call("a"))], missing("messages.1", "a")),
        ([ask, assistant(call("a")), user(text("b"), result("a"))], missing("messages.1", "a")),
        (
            [ask, assistant(call("a")), user(result("a"), result("a"))],
            "each tool_use must have a single result. Found multiple `tool_result` blocks with id: a"
        ),
        (
            [ask, assistant(call("a")), user(result("a")), assistant(call("a")), user(result("a"))],
            "messages.3.content.0: `tool_use` ids must be unique"
        ),
        (
            [ask, assistant(call("a.b")), user(result("a.b"))],
            "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
        ),
        (
            [ask, assistant(#"{"type":"tool_use","id":"a","name":"t","input":"x"}"#), user(result("a"))],
            "messages.1.content.0.tool_use.input: Input should be a valid dictionary"
        ),
        ([user(call("a"))], "messages.0.content.0: `tool_use` blocks can only be in `assistant` messages"),
        (
            [ask, assistant(result("a"))],
            "messages.1.content.0: `tool_result` blocks can only be in `user` messages"
        ),
    ]

    @Test(arguments: shapes + sources + calls)
    func `the API's rules hold`(messages: [String], refusal: String?) throws {
        let body = Support.body(messages: try Support.json("[\(messages.joined(separator: ","))]"))
        do throws(UpstreamError) {
            _ = try UpstreamRequest(body, needsMaxTokens: true)
            #expect(refusal == nil)
        } catch {
            #expect(error == .invalid(refusal ?? "nothing"))
        }
    }
}
