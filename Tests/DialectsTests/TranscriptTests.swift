import Dialects
import Testing

@Suite struct TranscriptTests {
    @Test(arguments: Transcript.requests)
    func `a recorded conversation gives the golden reply`(_ transcript: Transcript) throws {
        var replay = try Replay(transcript)
        try replay.receive(transcript.bytes("cli.stdout.jsonl")[...])
        replay.end()
        #expect(try replay.reply.text == transcript.golden(replay.reply))
        #expect(replay.hasEnded)
    }

    @Test(arguments: Transcript.requests)
    func `the CLI is written what it was written when it was recorded`(_ transcript: Transcript) throws {
        var replay = try Replay(transcript)
        try replay.receive(transcript.bytes("cli.stdout.jsonl")[...])
        let lines = String(decoding: replay.written, as: UTF8.self).split(separator: "\n").map { String($0) }
        let recorded = try transcript.lines("cli.stdin.jsonl")
        #expect(lines.count == recorded.count)
        for (line, expected) in zip(lines, recorded) { #expect(line == expected) }
        #expect(replay.written.last == 0x0A)
    }

    @Test(arguments: Transcript.requests)
    func `a byte at a time gives the same as all at once`(_ transcript: Transcript) throws {
        let bytes = try transcript.bytes("cli.stdout.jsonl")
        var whole = try Replay(transcript)
        try whole.receive(bytes[...])
        var single = try Replay(transcript)
        for index in bytes.indices { try single.receive(bytes[index...index]) }
        #expect(single.reply == whole.reply)
        #expect(single.written == whole.written)
        #expect(single.events == whole.events)
    }

    @Test(arguments: Transcript.requests, [1 as UInt64, 2, 3, 4, 5, 6, 7, 8])
    func `random splits give the same as all at once`(_ transcript: Transcript, _ seed: UInt64) throws {
        let bytes = try transcript.bytes("cli.stdout.jsonl")
        var whole = try Replay(transcript)
        try whole.receive(bytes[...])
        var split = try Replay(transcript)
        var generator = SeededGenerator(seed: seed)
        var start = 0
        while start < bytes.count {
            let end = min(bytes.count, start + Int.random(in: 1...700, using: &generator))
            try split.receive(bytes[start..<end])
            start = end
        }
        #expect(split.reply == whole.reply)
        #expect(split.written == whole.written)
        #expect(split.events == whole.events)
    }

    /// A space behind a line's first brace is enough to keep it from the short way.
    @Test(arguments: Transcript.requests)
    func `pieces that are read by the parser give the same`(_ transcript: Transcript) throws {
        let bytes = try transcript.bytes("cli.stdout.jsonl")
        var short = try Replay(transcript)
        try short.receive(bytes[...])
        var long = try Replay(transcript)
        for line in bytes.split(separator: 0x0A) {
            try long.receive([UInt8(ascii: "{"), 0x20] + line.dropFirst() + [0x0A])
        }
        #expect(long.reply == short.reply)
        #expect(long.written == short.written)
        #expect(long.events == short.events)
    }

    @Test(arguments: Transcript.requests, [1 as UInt64, 2, 3])
    func `a CLI that ends early never leaves an answer that looks whole`(
        _ transcript: Transcript, _ seed: UInt64
    ) throws {
        let bytes = try transcript.bytes("cli.stdout.jsonl")
        var generator = SeededGenerator(seed: seed)
        var replay = try Replay(transcript)
        try replay.receive(bytes[..<Int.random(in: 0..<bytes.count, using: &generator)])
        replay.end()
        let isAnswered = replay.events.contains(.answered)
        #expect(isAnswered != (replay.failure != nil))
        #expect(replay.hasEnded)
        #expect(!replay.reply.text.contains("message_stop") || isAnswered)
        #expect(!replay.reply.text.contains("[DONE]") || isAnswered)
        #expect(!replay.reply.text.contains("event: response.completed") || isAnswered)
        #expect(!replay.reply.text.contains("event: response.incomplete") || isAnswered)
    }

    /// The CLI itself closes the message of a broken stream with a `message_stop` of its own (`abandoned_blocks`), without
    /// a `message_delta`: taken for an end, half an answer would look whole.
    @Test(arguments: ["stream-cut", "error-mid-stream"])
    func `a stream that broke upstream is a failure`(_ name: String) throws {
        let transcript = Transcript(name: name)
        var replay = try Replay(transcript)
        try replay.receive(transcript.bytes("cli.stdout.jsonl")[...])
        #expect(replay.failure != nil)
        #expect(!replay.events.contains(.answered))
    }

    @Test func `all cases that the design names are recorded`() {
        let wanted: Set = [
            "api-error-400", "api-error-401", "api-error-404", "api-error-429", "api-error-529",
            "chat-anthropic-stream",
            "chat-history", "chat-openai-stream", "chat-openai-whole", "error-mid-stream", "max-tokens",
            "not-logged-in", "responses-failed", "responses-incomplete", "responses-reasoning", "responses-stream",
            "responses-structured", "responses-tools-round-trip", "responses-tools-stream", "responses-whole",
            "run-tool-bash", "run-tool-denied", "stream-cut", "system-prompt", "thinking", "run-tool-loop",
            "run-denied-rules", "run-max-turns", "run-max-budget", "run-structured", "run-resumed", "chat-host-tools",
        ]
        #expect(wanted.subtracting(Transcript.requests.map(\.name)) == [])
    }

    @Test(arguments: Transcript.requests)
    func `nothing of the machine is in a transcript`(_ transcript: Transcript) throws {
        for file in ["cli.stdout.jsonl", "cli.stdin.jsonl", "NOTE.md", "request.json"] {
            let text = String(decoding: try transcript.bytes(file), as: UTF8.self)
            for trace in ["/tmp/record", "/root/", "/home/", "sk-ant", "record-key"] {
                #expect(!text.contains(trace), "\(file) has \(trace)")
            }
        }
    }
}
