// The Messages API's event sequence, one step at a time.
//
// message_start, ping, then for each block content_block_start, its deltas and content_block_stop, then message_delta and
// message_stop. Each call of `next` appends the events of one step and says what to do before the following one; the
// caller decides how many steps share a write, waits, and watches the peer.

import Dialects

/// Writes an answer as server-sent events.
struct AnswerStream: Sendable {
    /// What to do after the events of a step.
    enum Step: Sendable, Equatable {
        /// Go on.
        case proceed
        /// Send what there is, wait, go on.
        case pause(Duration)
        /// Send what there is; the reply is complete, or cut off on purpose.
        case end
        /// Send what there is and fall silent.
        case stall
    }

    private enum Place: Sendable {
        case start
        case block(Int)
        case piece(block: Int, index: Int)
        case end
    }

    private let plan: AnswerPlan
    private let requestID: String
    private var place = Place.start

    /// A stream of the planned answer.
    init(_ plan: AnswerPlan, requestID: String) {
        self.plan = plan
        self.requestID = requestID
    }

    /// Appends the next events.
    mutating func next(into out: inout [UInt8]) -> Step {
        switch place {
        case .start:
            appendStart(to: &out)
            place = plan.blocks.isEmpty ? .end : .block(0)
            return plan.firstDelay > .zero ? .pause(plan.firstDelay) : .proceed
        case .block(let number):
            return block(number, into: &out)
        case .piece(let number, let index):
            guard case .text(let pieces, let citation) = plan.blocks[number] else {
                preconditionFailure("pieces are text")
            }
            return piece(index, of: pieces, citation: citation, block: number, into: &out)
        case .end:
            appendEnd(to: &out)
            return .end
        }
    }

    private mutating func block(_ number: Int, into out: inout [UInt8]) -> Step {
        switch plan.blocks[number] {
        case .text(_, let citation):
            if citation == nil, plan.fault?.afterPieces == 0 { return fault(into: &out) }
            let start: JSONValue =
                citation == nil ? ["type": "text", "text": ""] : ["type": "text", "text": "", "citations": []]
            appendBlockStart(number, start, to: &out)
            place = .piece(block: number, index: 0)
            return .proceed
        case .thinking(let text):
            appendBlockStart(number, ["type": "thinking", "thinking": "", "signature": ""], to: &out)
            if !text.isEmpty { appendDelta(number, "thinking_delta", "thinking", text, to: &out) }
            appendDelta(number, "signature_delta", "signature", AnswerPlan.signature, to: &out)
        case .redactedThinking:
            let start: JSONValue = ["type": "redacted_thinking", "data": .string(AnswerPlan.redactedData)]
            appendBlockStart(number, start, to: &out)
        case .toolUse(let id, let tool, let isWhole):
            let start: JSONValue = ["type": "tool_use", "id": .string(id), "name": .string(tool.name), "input": [:]]
            appendBlockStart(number, start, to: &out)
            let text = tool.inputText
            let middle = text.unicodeScalars.index(text.startIndex, offsetBy: text.unicodeScalars.count / 2)
            appendDelta(number, "input_json_delta", "partial_json", String(text[..<middle]), to: &out)
            if isWhole { appendDelta(number, "input_json_delta", "partial_json", String(text[middle...]), to: &out) }
        }
        appendBlockStop(number, to: &out)
        return .proceed
    }

    private mutating func piece(
        _ index: Int, of pieces: TextPieces, citation: String?, block number: Int, into out: inout [UInt8]
    ) -> Step {
        if citation == nil, plan.fault?.afterPieces == index { return fault(into: &out) }
        if index == pieces.count {
            if let citation { appendCitation(number, citation, to: &out) }
            appendBlockStop(number, to: &out)
            return .proceed
        }
        appendDelta(number, "text_delta", "text", pieces[index], to: &out)
        place = .piece(block: number, index: index + 1)
        return plan.pieceDelay > .zero && index + 1 < pieces.count ? .pause(plan.pieceDelay) : .proceed
    }

    private func fault(into out: inout [UInt8]) -> Step {
        switch plan.fault?.kind {
        case .stall: return .stall
        case .cut, .drop, nil: return .end
        case .error:
            ServerSentEvents.append(event: "error", to: &out)
            ServerSentEvents.append(data: UpstreamError.ordered(529).body(requestID: requestID), to: &out)
            return .end
        }
    }

    private func appendStart(to out: inout [UInt8]) {
        let message: JSONValue = [
            "id": .string(plan.id), "type": "message", "role": "assistant", "model": .string(plan.model), "content": [],
            "stop_reason": nil, "stop_sequence": nil, "usage": plan.startUsage,
        ]
        append(["type": "message_start", "message": message], "message_start", to: &out)
        append(["type": "ping"], "ping", to: &out)
    }

    private func appendEnd(to out: inout [UInt8]) {
        let delta: JSONValue = [
            "stop_reason": .string(plan.stopReason), "stop_sequence": plan.stopSequenceJSON,
        ]
        append(["type": "message_delta", "delta": delta, "usage": plan.finalUsage], "message_delta", to: &out)
        append(["type": "message_stop"], "message_stop", to: &out)
    }

    private func appendBlockStart(_ number: Int, _ block: JSONValue, to out: inout [UInt8]) {
        let name = "content_block_start"
        append(["type": .string(name), "index": .integer(number), "content_block": block], name, to: &out)
    }

    private mutating func appendBlockStop(_ number: Int, to out: inout [UInt8]) {
        append(["type": "content_block_stop", "index": .integer(number)], "content_block_stop", to: &out)
        place = number + 1 < plan.blocks.count ? .block(number + 1) : .end
    }

    private func appendCitation(_ number: Int, _ text: String, to out: inout [UInt8]) {
        let delta: JSONValue = ["type": "citations_delta", "citation": AnswerPlan.citation(text)]
        let name = "content_block_delta"
        append(["type": .string(name), "index": .integer(number), "delta": delta], name, to: &out)
    }

    /// Appends a delta.
    ///
    /// Written without a tree, because benchmarks measure what stands in front of this process.
    private func appendDelta(_ number: Int, _ type: String, _ member: String, _ text: String, to out: inout [UInt8]) {
        JSONWriter.append(
            raw: "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":", to: &out)
        JSONWriter.append(raw: String(number), to: &out)
        JSONWriter.append(raw: ",\"delta\":{\"type\":\"", to: &out)
        JSONWriter.append(raw: type, to: &out)
        JSONWriter.append(raw: "\",\"", to: &out)
        JSONWriter.append(raw: member, to: &out)
        JSONWriter.append(raw: "\":", to: &out)
        JSONWriter.append(string: text, to: &out)
        JSONWriter.append(raw: "}}\n\n", to: &out)
    }

    private func append(_ data: JSONValue, _ name: String, to out: inout [UInt8]) {
        ServerSentEvents.append(event: name, to: &out)
        ServerSentEvents.append(data: data, to: &out)
    }
}
