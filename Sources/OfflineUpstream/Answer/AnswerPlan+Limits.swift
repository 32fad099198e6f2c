// Where an answer ends before everything that was planned has been said: at a stop sequence, or at `max_tokens`.

import Dialects

extension AnswerPlan {
    /// What ended an answer.
    enum Ending: Sendable, Equatable {
        /// Nothing but its own end.
        case complete
        case maxTokens
        case stopSequence(String)

        /// The stop reason that it is told by; nil for an answer that is complete.
        var reason: String? {
            switch self {
            case .complete: nil
            case .maxTokens: "max_tokens"
            case .stopSequence: "stop_sequence"
            }
        }

        /// The stop sequence that was met.
        var sequence: String? { if case .stopSequence(let sequence) = self { sequence } else { nil } }
    }

    /// Leaves out what comes after the end.
    static func limit(
        _ blocks: [Block], maximumTokens: Int, stopSequences: [String]
    ) -> (blocks: [Block], ending: Ending) {
        var kept: [Block] = []
        var left = maximumTokens
        for block in blocks {
            switch block {
            case .text(let pieces, let citation):
                let said = pieces.prefix(left)
                if let cut = said.cut(beforeAny: stopSequences) {
                    return (kept + [.text(cut.pieces, citation: citation)], .stopSequence(cut.sequence))
                }
                kept.append(.text(said, citation: citation))
                if said.count < pieces.count { return (kept, .maxTokens) }
            case .toolUse(let id, let tool, _) where left == 1:
                return (kept + [.toolUse(id: id, tool, isWhole: false)], .maxTokens)
            case .thinking, .redactedThinking, .toolUse:
                if left < block.tokens { return (kept, .maxTokens) }
                kept.append(block)
            }
            left -= block.tokens
        }
        return (kept, .complete)
    }
}

extension AnswerPlan.Block {
    /// The number of pieces, which stand for output tokens.
    var tokens: Int {
        switch self {
        case .thinking, .redactedThinking: 1
        case .text(let pieces, _): pieces.count
        case .toolUse(_, _, let isWhole): isWhole ? 2 : 1
        }
    }
}
