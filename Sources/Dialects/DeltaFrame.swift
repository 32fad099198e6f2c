/// What stands around a piece of text in a stream's event: made once for a block, because there is an event for each token.
struct DeltaFrame: Sendable, Equatable {
    /// A text that is in no event, and its JSON.
    private static let mark = "\u{1}"
    private static let quotedMark = Array(#""\u0001""#.utf8)

    /// Up to the piece's opening quote.
    private let head: ArraySlice<UInt8>
    /// From behind its closing quote to the event's end.
    private let tail: ArraySlice<UInt8>

    /// The frame of an event.
    ///
    /// - Parameter event: Appends the event of a piece, in which the piece is a string's whole text; behind it there is
    ///   nothing of a caller's.
    init(_ event: (_ piece: String, _ out: inout [UInt8]) -> Void) {
        var bytes: [UInt8] = []
        event(Self.mark, &bytes)
        let count = Self.quotedMark.count
        let place = (0...max(0, bytes.count - count)).last { bytes[$0...].starts(with: Self.quotedMark) }
        guard let place else { preconditionFailure("an event without its piece") }
        head = bytes[..<place]
        tail = bytes[(place + count)...]
    }

    /// Appends the event of a piece.
    func append(_ piece: String, to out: inout [UInt8]) {
        out.append(contentsOf: head)
        JSONWriter.append(string: piece, to: &out)
        out.append(contentsOf: tail)
    }
}
