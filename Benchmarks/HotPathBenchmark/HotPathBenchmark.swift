// What a streamed delta costs between the pipes, without the system calls: the CLI's bytes to lines, to events, to what the client
// is sent.
//
//   HotPathBenchmark [DELTAS]      a table, then one line of JSON
//
// The reference is the way by the JSON tree, which all other lines take. Figures are ratios of one run. Under callgrind
// (`valgrind --tool=callgrind`) a few thousand deltas are enough.

import Dialects
import Glibc

/// The output of the CLI for one streamed chat of so many text deltas, in reads of 64 KiB.
struct Output {
    private(set) var opening: [UInt8] = []
    private(set) var chunks: [[UInt8]] = []

    /// - Parameter isShort: Whether the lines are as the CLI writes them; else each has a space more, which leaves it to the parser.
    init(deltas: Int, isShort: Bool = true) {
        let session = "00000000-0000-4000-8000-000000000001"
        let tail =
            #""session_id":"\#(session)","parent_tool_use_id":null,"uuid":"00000000-0000-4000-8000-000000000006","#
            + #""api_message_id":"msg_offline_0001"}"#
        let brace = isShort ? "{" : "{ "
        func event(_ text: String) -> String { brace + #""type":"stream_event","event":\#(text),\#(tail)"# + "\n" }
        opening = Array(
            (#"{"type":"system","subtype":"init","session_id":"\#(session)","model":"claude-sonnet-5-5","tools":[]}"#
                + "\n"
                + event(
                    #"{"type":"message_start","message":{"id":"msg_1","model":"claude-sonnet-5-5","usage":{"input_tokens":3}}}"#
                )
                + event(
                    #"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#)).utf8)
        let words = [
            "tok17 ", "the", " quick", ",", " brown", "\\n\\n", " \\\"fox\\\"", " jumps", " über", " the lazy dog.",
        ]
        var bytes: [UInt8] = []
        for index in 0..<deltas {
            let delta = #"{"type":"text_delta","text":"\#(words[index % words.count])"}"#
            bytes += Array(event(#"{"type":"content_block_delta","index":0,"delta":\#(delta)}"#).utf8)
        }
        for start in stride(from: 0, to: bytes.count, by: 65536) {
            chunks.append(Array(bytes[start..<min(bytes.count, start + 65536)]))
        }
    }
}

/// Seconds of the thread's CPU.
func seconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// The least of several rounds, in nanoseconds a delta: whatever else the machine does only adds.
func measure(_ deltas: Int, _ body: () -> Int) -> Double {
    var best = Double.infinity
    for _ in 0..<5 {
        let began = seconds()
        precondition(body() >= deltas, "nothing was done")
        best = min(best, seconds() - began)
    }
    return best / Double(deltas) * 1e9
}

extension LineBuffer {
    mutating func take(_ chunk: [UInt8]) {
        let count = unsafe try? append { room in
            unsafe room.copyBytes(from: chunk)
            return chunk.count
        }
        precondition(count == chunk.count, "a line is too long")
    }
}

func lines(_ output: Output, _ body: ([UInt8], Range<Int>) -> Void) -> Int {
    var count = 0
    var buffer = LineBuffer(limitBytes: 1 << 24)
    for chunk in output.chunks {
        buffer.take(chunk)
        while let line = buffer.nextLine() {
            body(buffer.bytes, line)
            count += 1
        }
    }
    return count
}

/// A conversation whose answer has begun.
func begun(_ output: Output) -> ClaudeConversation {
    var request = RunRequest(turns: [.init(role: .user, blocks: [RunRequest.Turn.text("Hi")])])
    request.isStreaming = true
    var conversation = ClaudeConversation(request, model: nil)
    _ = conversation.start()
    for _ in 0..<8 {
        for step in ["initialize", "model", "settings", "thinking", "servers"] {
            let text =
                #"{"type":"control_response","response":{"subtype":"success","request_id":"\#(step)","response":{}}}"#
            let bytes = Array(text.utf8)
            _ = conversation.receive(bytes, in: 0..<bytes.count)
        }
    }
    var buffer = LineBuffer(limitBytes: 1 << 24)
    buffer.take(output.opening)
    while let line = buffer.nextLine() { _ = conversation.receive(buffer.bytes, in: line) }
    return conversation
}

func events(_ output: Output, _ encoder: (any StreamEncoder)?) -> Int {
    var conversation = begun(output)
    var encoder = encoder
    encoder?.begin()
    var count = 0
    var sent = 0
    _ = lines(output) { bytes, line in
        for action in conversation.receive(bytes, in: line) {
            guard case .event(let event) = action else { continue }
            if case .text = event { count += 1 }
            guard encoder != nil else { continue }
            var out: [UInt8] = []
            encoder?.encode(event, into: &out)
            sent += out.count
        }
    }
    return count
}

extension StreamEncoder {
    mutating func begin() {
        var out: [UInt8] = []
        encode(.messageStarted(id: "msg_1", model: "claude-sonnet-5-5", usage: TokenUsage()), into: &out)
        encode(.blockStarted(.text), into: &out)
    }
}

let deltas = CommandLine.arguments.dropFirst().first.flatMap { Int($0) } ?? 20_000
let output = Output(deltas: deltas)
let context = ReplyContext(requestID: "r", created: 1, fingerprint: "f")
let byTree = Output(deltas: deltas, isShort: false)
let reference = measure(deltas) { events(byTree, nil) }
let cases: [(String, Double)] = [
    ("lines", measure(deltas) { lines(output) { _, _ in } }),
    ("lines to events", measure(deltas) { events(output, nil) }),
    (
        "lines to OpenAI's chunks",
        measure(deltas) { events(output, ChatCompletionsStream(context: context, options: ReplyOptions())) }
    ),
    ("lines to Anthropic's events", measure(deltas) { events(output, MessagesStream()) }),
]
func rounded(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }
print("of lines to events by way of the tree (\(Int(reference)) ns a delta):")
for (name, nanoseconds) in cases { print("\(rounded(nanoseconds / reference))  \(name)") }
print(
    #"{"deltas":\#(deltas),"reference_ns":\#(Int(reference)),"#
        + cases.map { #""\#($0.0)":\#(rounded($0.1 / reference))"# }.joined(separator: ",") + "}")
