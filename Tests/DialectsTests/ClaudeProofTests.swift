import Dialects
import Testing

@Suite struct ClaudeProofTests {
    private static func acknowledged(_ id: String) -> String {
        #"{"type":"control_response","response":{"subtype":"success","request_id":"\#(id)"}}"#
    }

    /// - Returns: What is written, and whether the process is to be ended.
    private static func say(_ proof: inout ClaudeProof, _ line: String) -> (written: String, hasEnded: Bool) {
        text(of: proof.receive(Array(line.utf8), in: 0..<line.utf8.count))
    }

    private static func text(of actions: [ClaudeConversation.Action]) -> (written: String, hasEnded: Bool) {
        var written = ""
        for case .write(let bytes) in actions { written += String(decoding: bytes, as: UTF8.self) }
        #expect(!actions.contains { if case .event = $0 { true } else { false } })
        return (written, actions.contains(.end))
    }

    @Test func `a request is made as any other, to the listener`() {
        var proof = ClaudeProof(listener: "http://127.0.0.1:7")
        #expect(
            Self.text(of: proof.start()).written
                == #"{"type":"control_request","request_id":"proof","request":{"subtype":"apply_flag_settings","settings":{"env":{"ANTHROPIC_BASE_URL":"http://127.0.0.1:7","CLAUDE_CODE_MAX_RETRIES":"0"}}}}"#
                + "\n")
        #expect(
            Self.say(&proof, Self.acknowledged("proof")).written
                == #"{"type":"control_request","request_id":"model","request":{"subtype":"set_model","model":"haiku","system_prompt":"Answer as the clerk of warm spares would."}}"#
                + "\n"
                + #"{"type":"control_request","request_id":"settings","request":{"subtype":"apply_flag_settings","settings":{"model":"haiku"}}}"#
                + "\n")
        #expect(Self.say(&proof, Self.acknowledged("model")).written.isEmpty)
        #expect(
            Self.say(&proof, Self.acknowledged("settings")).written.contains(#""text":"Is this the only message?""#))
        #expect(!proof.isOver)
        let end = Self.say(
            &proof,
            #"{"type":"result","subtype":"success","is_error":true,"api_error_status":400,"result":"API Error: 400"}"#)
        #expect(end.hasEnded && proof.isOver)
    }

    @Test func `a CLI that refuses or ends is no proof`() {
        for line in ["no json", Self.acknowledged("proof").replacing("success", with: "error")] {
            var proof = ClaudeProof(listener: "http://x")
            _ = proof.start()
            #expect(Self.say(&proof, line).hasEnded && proof.isOver)
        }
        var proof = ClaudeProof(listener: "http://x")
        _ = proof.start()
        #expect(proof.outputEnded() == [.end])
        #expect(proof.isOver && proof.outputEnded().isEmpty)
    }

    private static let mark = #"{"type":"text","text":"Answer as the clerk of warm spares would."}"#
    private static let prompt = #"{"type":"text","text":"Is this the only message?"}"#
    private static let user = #"{"role":"user","content":[\#(prompt)]}"#

    @Test(arguments: [
        (#"{"system":[\#(mark)],"messages":[\#(user)]}"#, true),
        (#"{"system":[{"type":"text","text":"billing"},\#(mark)],"messages":[\#(user)]}"#, true),
        (
            #"{"system":"Answer as the clerk of warm spares would.","messages":[{"role":"user","content":"Is this the only message?"}]}"#,
            true
        ),
        // What the two CLIs say by themselves.
        (
            #"{"system":[\#(mark)],"messages":[\#(user),{"role":"system","content":[{"type":"text","text":"Environment"}]}]}"#,
            true
        ),
        (
            #"{"system":[\#(mark)],"messages":[{"role":"user","content":[{"type":"text","text":"<system-reminder>\nToday"},\#(prompt)]}]}"#,
            true
        ),
        (#"{"system":[{"type":"text","text":"other"}],"messages":[\#(user)]}"#, false),
        (#"{"system":[\#(mark)],"tools":[],"messages":[\#(user)]}"#, true),
        (#"{"system":[\#(mark)],"tools":[{"name":"is_ready"}],"messages":[\#(user)]}"#, false),
        (#"{"messages":[\#(user)]}"#, false),
        (#"{"system":[\#(mark)],"messages":[]}"#, false), (#"{"system":[\#(mark)]}"#, false),
        (#"{"system":[\#(mark)],"messages":[{"role":"user","content":"Hi"},\#(user)]}"#, false),
        (
            #"{"system":[\#(mark)],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"},\#(prompt)]}]}"#,
            false
        ),
        (
            #"{"system":[\#(mark)],"messages":[{"role":"user","content":[{"type":"text","text":"<command-name>/model"},\#(prompt)]}]}"#,
            false
        ),
        (#"{"system":[\#(mark)],"messages":[{"role":"assistant","content":[\#(prompt)]}]}"#, false),
        (#"{"system":[\#(mark)],"messages":[{"role":"user","content":"Is this the only message? No."}]}"#, false),
        ("{}", false),
    ])
    func `the request has the mark and nothing but the prompt`(_ body: String, _ isProof: Bool) throws {
        #expect(ClaudeProof.isProof(body: try json(body)) == isProof)
    }
}
