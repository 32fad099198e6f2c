// What the author of a prompt can order: `[[name=value]]`, anywhere in the text of the last user message.
//
// Directives+Parsing.swift finds them in a text, Turn.swift says which text that is. docs/offline-upstream.md lists them all.

import Dialects

/// The directives found in a prompt.
struct Directives: Sendable, Equatable {
    /// Where the answer's text comes from.
    enum Text: Sendable, Equatable {
        /// This text: `[[say=TEXT]]`.
        case say(String)
        /// The prompt itself, directives included: `[[echo]]`.
        case echo
        /// So many pieces `tok0 tok1 …`: `[[tokens=N]]`.
        case tokens(Int)
    }

    /// A tool to call: `[[tool=NAME {json}]]`.
    struct Tool: Sendable, Equatable {
        /// The tool's name.
        var name: String
        /// The input's JSON as it was written.
        var inputText: String
        /// The same, parsed.
        var input: JSONValue

        /// A call whose input was written by someone.
        init(name: String, inputText: String, input: JSONValue) {
            self.name = name
            self.inputText = inputText
            self.input = input
        }

        /// A call whose input was made up.
        init(name: String, input: JSONValue) {
            self.init(name: name, inputText: String(decoding: JSONWriter.bytes(input), as: UTF8.self), input: input)
        }
    }

    /// How often an error or a fault strikes: `*TIMES` after its value.
    struct Recurrence: Sendable, Equatable {
        /// How many requests of a session are struck before one is answered; nil for all.
        var times: Int?
        /// The directive as it was written, which tells one count from another.
        var spelling: String
    }

    /// An HTTP error: `[[error=STATUS]]` or `[[error=STATUS*TIMES]]`.
    struct Failure: Sendable, Equatable {
        /// The HTTP status.
        var status: Int
        /// How often.
        var recurrence: Recurrence
    }

    /// What goes wrong within the answer; each may have `*TIMES` as well.
    enum FaultKind: String, Sendable {
        /// `[[error_after=N]]`: an SSE `error` event.
        case error = "error_after"
        /// `[[stall=N]]`: silence until the peer leaves.
        case stall
        /// `[[cut=N]]`: a proper end of the HTTP reply, without the terminal events.
        case cut
        /// `[[drop=N]]`: a connection that breaks before the reply's announced length.
        case drop
    }

    /// A fault and its place.
    struct Fault: Sendable, Equatable {
        /// What happens.
        var kind: FaultKind
        /// After how many pieces of text.
        var afterPieces: Int
        /// How often.
        var recurrence: Recurrence
    }

    /// Token counts of the input: `[[usage=IN,CACHE_READ,CACHE_CREATION]]`.
    struct InputUsage: Sendable, Equatable {
        /// Tokens that no cache held.
        var input: Int
        /// Tokens read from the cache.
        var cacheRead = 0
        /// Tokens written to the cache.
        var cacheCreation = 0
    }

    /// The text that was ordered; nil for none.
    var text: Text?
    /// The text of a thinking block: `[[think=TEXT]]`.
    var thinking: String?
    /// Whether there is a block of thinking that nobody can read: `[[redacted]]`.
    var redacts = false
    /// A text block of this text that quotes it as its source: `[[cite=TEXT]]`.
    var citation: String?
    /// The tools to call, in order.
    var tools: [Tool] = []
    /// The input of the structured output: `[[json={…}]]`.
    var output: JSONValue?
    /// How many structured outputs don't fit their schema before one does: `[[json_bad=N]]`.
    var badOutputs = 0
    /// The text of the answer to the tools' results: `[[then=TEXT]]`.
    var laterText: String?
    /// The tools that the answer to the tools' results calls: `[[then_tool=NAME {json}]]`.
    var laterTools: [Tool] = []
    /// Whether the request's stop sequences are passed over: `[[ignore_stop]]`.
    var ignoresStop = false
    /// The share of a rate limit that is used up: `[[rate_limit=UTILIZATION]]`.
    var rateLimit: RateLimit?
    /// The stop reason that was ordered: `[[stop_reason=WORD]]`.
    var stopReason: String?
    /// An HTTP error instead of an answer.
    var failure: Failure?
    /// A fault within the answer.
    var fault: Fault?
    /// The token counts that were ordered.
    var usage: InputUsage?
    /// `[[first_ms=N]]`: the wait before the first content.
    var firstDelay = Duration.zero
    /// `[[delay_ms=N]]`: the wait between two pieces of text.
    var pieceDelay = Duration.zero

    /// No directives.
    init() {}

    /// The directives that hold for what a conversation asks last.
    ///
    /// After tool results these are the ones that are about what comes later; see Turn.swift.
    init(turn: Turn) {
        let ordered = Directives(prompt: turn.order)
        if turn.kind == .prompt {
            self = ordered
            return
        }
        ignoresStop = ordered.ignoresStop
        output = ordered.output
        badOutputs = ordered.badOutputs
        guard turn.kind == .toolResults else { return }
        if turn.answers == 1 { tools = ordered.laterTools }
        if tools.isEmpty { text = ordered.laterText.map(Text.say) }
    }
}
