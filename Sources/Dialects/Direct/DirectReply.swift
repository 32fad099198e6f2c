/// Writes the reply of `POST /api/run`.
public enum DirectReply {
    /// The whole reply, with the Node proxy's fields.
    public static func whole(_ answer: Answer, id: String, duration: Duration) -> JSONValue {
        let (seconds, attoseconds) = duration.components
        return [
            "id": .string(id), "result": .string(answer.summary?.result ?? answer.text),
            "sessionId": .string(answer.sessionID),
            "durationMs": .integer(Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000)),
        ]
    }
}
