import Dialects
import FastCGI
import Sessions

extension Responder {
    /// `GET /api/sessions`.
    func listSessions(
        _ client: Client, _ request: borrowing FastCGIRequest, _ reply: inout ReplyWriter
    ) throws(APIError) {
        var limit = 100
        var after: String?
        for (name, value) in Self.query(request) {
            switch name {
            case "limit": limit = try PageLimit.read(value, upTo: 1000)
            case "after": after = value
            default: break
            }
        }
        let page = try sessions.list(owner: client.name, limit: limit, after: after)
        reply.reply(
            status: 200,
            json: [
                "sessions": .array(page.sessions.map { SessionJSON.entry($0) }), "hasMore": .bool(page.hasMore),
            ])
    }

    /// `DELETE /api/sessions`.
    func deleteSessions(_ client: Client, _ reply: inout ReplyWriter) throws(APIError) {
        let count = try sessions.deleteAll(owner: client.name)
        reply.reply(status: 200, json: ["message": "Sessions deleted", "deleted": .integer(count)])
    }

    /// `GET` and `DELETE /api/sessions/ID`.
    func answerSession(
        _ id: String, _ isDeletion: Bool, _ client: Client, _ reply: inout ReplyWriter
    ) throws(APIError) {
        if isDeletion {
            try sessions.delete(id, owner: client.name)
            return reply.reply(status: 200, json: ["message": "Session deleted", "sessionId": .string(id)])
        }
        let session = try sessions.session(id, owner: client.name)
        reply.reply(status: 200, json: SessionJSON.entry(session, messages: try sessions.messages(session)))
    }
}

/// Sessions as callers and the operator see them.
enum SessionJSON {
    /// One session; the operator's has its key's name as well.
    static func entry(_ session: StoredSession, messages: [RunRequest.Turn]? = nil, owner: String? = nil) -> JSONValue {
        var entry = JSONObject([
            ("id", .string(session.id)), ("createdAt", .string(Timestamp.text(session.created))),
            ("lastAccessedAt", .string(Timestamp.text(session.lastUsed))),
            ("title", session.title.map { .string($0) } ?? .null),
            ("workingDirectory", session.workingDirectory.isEmpty ? .null : .string(session.workingDirectory)),
            ("model", .string(session.model)), ("profile", .string(session.profile.rawValue)),
            ("turns", .integer(session.turns)),
            (
                "usage",
                [
                    "inputTokens": .integer(session.inputTokens), "outputTokens": .integer(session.outputTokens),
                    "cacheReadTokens": .integer(session.cacheReadTokens),
                    "cacheCreationTokens": .integer(session.cacheCreationTokens),
                ]
            ),
            ("costUsd", .number("\(session.costUSD)")),
        ])
        if let owner { entry["owner"] = .string(owner) }
        if let messages {
            entry["messages"] = .array(
                messages.map { turn in ["role": .string(turn.role.rawValue), "content": .array(turn.blocks)] })
        }
        return .object(entry)
    }
}
