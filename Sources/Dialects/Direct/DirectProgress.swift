/// How far a background run is.
public struct DirectProgress: Sendable, Equatable {
    /// How many messages of the model's have ended.
    public private(set) var turns = 0
    /// How many calls of tools have begun.
    public private(set) var toolCalls = 0
    /// How many characters of text the model has written, over all messages.
    public private(set) var textLength = 0
    /// The tool that was called last.
    public private(set) var lastTool: String?

    /// A run that has not begun.
    public init() {}

    /// Takes in what happened.
    ///
    /// - Returns: Whether more changed than the text's length, which changes with each piece.
    @discardableResult
    public mutating func append(_ event: RunEvent) -> Bool {
        switch event {
        case .text(let piece):
            textLength += piece.count
            return false
        case .blockStarted(.toolUse(_, let name)):
            toolCalls += 1
            lastTool = name
        case .messageEnded: turns += 1
        default: return false
        }
        return true
    }

    /// `progress` of a run.
    public var json: JSONValue {
        [
            "turns": .integer(turns), "toolCalls": .integer(toolCalls), "textLength": .integer(textLength),
            "lastTool": lastTool.map { .string($0) } ?? .null,
        ]
    }
}
