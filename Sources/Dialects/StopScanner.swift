/// Cuts a text that comes in pieces before the first of some words.
///
/// Only as much is held back as may turn out to be the beginning of such a word.
public struct StopScanner: Sendable {
    /// What a piece of text leads to.
    public enum Outcome: Sendable, Equatable {
        /// This much of the text is certain, perhaps nothing.
        case text(String)
        /// The text ends with this, because that word follows.
        case stopped(text: String, word: String)
    }

    private let words: [(text: String, bytes: [UInt8])]
    private let longest: Int
    private var held: [UInt8] = []

    /// A scanner for these words; empty ones don't count.
    public init(_ words: [String]) {
        self.words = words.filter { !$0.isEmpty }.map { ($0, Array($0.utf8)) }
        longest = self.words.map(\.bytes.count).max() ?? 0
    }

    /// Takes the next piece.
    public mutating func scan(_ piece: String) -> Outcome {
        if words.isEmpty { return .text(piece) }
        held += Array(piece.utf8)
        if let (start, word) = firstMatch() {
            let text = String(decoding: held[..<start], as: UTF8.self)
            held = []
            return .stopped(text: text, word: word)
        }
        let keep = beginningAtEnd()
        let text = String(decoding: held[..<(held.count - keep)], as: UTF8.self)
        held.removeFirst(held.count - keep)
        return .text(text)
    }

    /// The text is at its end: what was held back belongs to it.
    public mutating func flush() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }

    /// The word that is whole first, so that it makes no difference how the text was split; of two that end at one place
    /// the longer.
    private func firstMatch() -> (start: Int, word: String)? {
        for end in held.indices {
            var found: (start: Int, word: String)?
            for word in words where held[...end].suffix(word.bytes.count).elementsEqual(word.bytes) {
                let start = end + 1 - word.bytes.count
                if found.map({ start < $0.start }) ?? true { found = (start, word.text) }
            }
            if let found { return found }
        }
        return nil
    }

    /// How many bytes at the end may be the beginning of a word.
    ///
    /// Never inside a character: a word's bytes begin at a character's beginning.
    private func beginningAtEnd() -> Int {
        for count in stride(from: min(held.count, longest - 1), to: 0, by: -1) {
            let tail = held.suffix(count)
            if words.contains(where: { $0.bytes.count > count && $0.bytes.starts(with: tail) }) { return count }
        }
        return 0
    }
}
