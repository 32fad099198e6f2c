/// A text in the pieces in which it is streamed.
enum TextPieces: Sendable, Equatable {
    /// The text itself, cut as ``init(cutting:)`` does.
    case literal([String])
    /// `tok0 tok1 …`, made when they are sent.
    case counted(Int)

    /// Cuts at spaces into pieces of a few words; a run without spaces is cut at 48 bytes, never inside a character's bytes.
    init(cutting text: String) {
        var pieces: [String] = []
        let utf8 = text.utf8
        var start = utf8.startIndex
        var length = 0
        for index in utf8.indices {
            let isContinuation = utf8[index] & 0xC0 == 0x80
            if length >= 48, !isContinuation {
                pieces.append(String(text[start..<index]))
                start = index
                length = 0
            }
            length += 1
            if length >= 12, utf8[index] == UInt8(ascii: " ") {
                let end = utf8.index(after: index)
                pieces.append(String(text[start..<end]))
                start = end
                length = 0
            }
        }
        if length > 0 { pieces.append(String(text[start...])) }
        self = .literal(pieces)
    }

    /// How many pieces there are.
    var count: Int {
        switch self {
        case .literal(let pieces): pieces.count
        case .counted(let count): count
        }
    }

    /// One piece.
    subscript(_ index: Int) -> String {
        switch self {
        case .literal(let pieces): pieces[index]
        case .counted: "tok\(index) "
        }
    }

    /// All pieces in one.
    var joined: String { (0..<count).reduce(into: "") { $0 += self[$1] } }

    /// The first pieces.
    func prefix(_ count: Int) -> TextPieces {
        switch self {
        case .literal(let pieces): .literal(Array(pieces.prefix(count)))
        case .counted(let all): .counted(min(all, count))
        }
    }

    /// The text before the first of the stop sequences that occurs in it, wherever the pieces end.
    ///
    /// Of two that begin at one place the shorter counts, since it is whole first.
    ///
    /// - Returns: The pieces before it and the sequence; nil when there is none.
    func cut(beforeAny sequences: [String]) -> (pieces: TextPieces, sequence: String)? {
        let needles = sequences.filter { !$0.isEmpty }.map { Array($0.utf8) }.sorted { $0.count < $1.count }
        if needles.isEmpty { return nil }
        let text = (0..<count).reduce(into: [UInt8]()) { $0 += self[$1].utf8 }
        for start in text.indices {
            guard let needle = needles.first(where: { text[start...].starts(with: $0) }) else { continue }
            return (head(ofBytes: start), String(decoding: needle, as: UTF8.self))
        }
        return nil
    }

    /// The pieces of the first bytes; the last one may be a part of what it was.
    private func head(ofBytes length: Int) -> TextPieces {
        var kept: [String] = []
        var left = length
        for index in 0..<count where left > 0 {
            let piece = self[index].utf8.prefix(left)
            left -= piece.count
            kept.append(String(decoding: Array(piece), as: UTF8.self))
        }
        return .literal(kept)
    }
}
