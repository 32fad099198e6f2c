import Admission
import Dialects
import FastCGI
import Glibc
import ProcessControl
import Sessions

extension Responder {
    /// `POST /v1/responses`.
    @inline(never) func createResponse(
        _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        var wanted = try decode(request, &log, ResponsesRequest.decode)
        if let previous = wanted.previousID { wanted.prepend(try conversation(of: previous, client)) }
        try wanted.finish()
        let runs = try choices([wanted.run], &log)
        let context = context(log)
        let id = "resp_" + UUIDText.random().filter { $0 != "-" }
        if wanted.isBackground {
            return try runInBackground(wanted, id, context, client, &request, &reply, &log)
        }
        let asked = wanted
        let form: ReplyForm =
            wanted.run.isStreaming
            ? .stream(ResponsesStream(request: asked, context: context, id: id) { WallClock.now.seconds })
            : .whole { answers, _ in
                ResponsesReply.whole(
                    answers[0], request: asked, context: context, id: id, completedAt: WallClock.now.seconds)
            }
        var hooks = RunHooks()
        if wanted.isStored {
            hooks.keep = { [responses] answer in
                let response = ResponsesReply.whole(
                    answer, request: asked, context: context, id: id, completedAt: WallClock.now.seconds)
                responses.keep(
                    Self.row(asked, id, Self.state(of: response), response, answer, client, context.created))
            }
        }
        try pipeline.run(
            runs, as: form, route: .responses, client: client, request: &request, reply: &reply, log: &log, hooks: hooks
        )
    }

    /// Answers at once, and goes on without the client on this thread.
    private func runInBackground(
        _ wanted: ResponsesRequest, _ id: String, _ context: ReplyContext, _ client: Client,
        _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        guard !wanted.run.isStreaming else {
            throw .invalid(
                "stream", "`stream` can't be had with `background` here. Fetch the response when it is ready.")
        }
        let queued = ResponsesReply.state(.queued, request: wanted, context: context, id: id)
        var row = Self.row(wanted, id, .queued, queued, nil, client, context.created)
        row.runnerPID = getpid()
        row.runnerStartTime = ProcessIdentity.startTime(of: getpid())
        try responses.insert(row)
        reply.reply(status: 200, json: queued)
        _ = reply.flushAll(to: request, patience: .seconds(60))
        request.finish()

        var isKept = false
        var hooks = RunHooks()
        hooks.began = { [responses] in
            let running = ResponsesReply.state(.inProgress, request: wanted, context: context, id: id)
            responses.begin(id, running)
        }
        hooks.keep = { [responses] answer in
            isKept = true
            let response = ResponsesReply.whole(
                answer, request: wanted, context: context, id: id, completedAt: WallClock.now.seconds)
            responses.finish(id, Self.state(of: response), response, wanted.conversation(with: answer).json)
        }
        hooks.isCancelled = { [responses] in
            (try? responses.use { store throws(SessionStoreError) in try store.isCancelRequested(id: id) }) ?? false
        }
        var nothing = ReplyWriter()
        do throws(APIError) {
            try pipeline.run(
                [wanted.run], as: .none, route: .responses, client: client, request: &request, reply: &nothing,
                log: &log, hooks: hooks)
        } catch {
            log.error = error
        }
        if isKept { return }
        let state: ResponsesStatus = log.isAbandoned ? .cancelled : .failed
        let ended = ResponsesReply.state(state, error: log.error, request: wanted, context: context, id: id)
        responses.finish(id, log.isAbandoned ? .cancelled : .failed, ended, wanted.conversation(with: nil).json)
    }

    /// `GET` and `DELETE /v1/responses/ID`.
    func answerResponse(
        _ id: String, _ isDeletion: Bool, _ client: Client, _ request: borrowing FastCGIRequest,
        _ reply: inout ReplyWriter
    ) throws(APIError) {
        if isDeletion {
            let isDeleted = try responses.use { store throws(SessionStoreError) in
                try store.delete(id: id, owner: client.name)
            }
            guard isDeleted else { throw StoredResponses.missing }
            return reply.reply(status: 200, json: ["id": .string(id), "object": "response", "deleted": true])
        }
        if Self.query(request).contains(where: { $0.name == "stream" && $0.value == "true" }) {
            throw .invalid("stream", "`stream`: a stored response is given whole. Leave it out.")
        }
        reply.reply(status: 200, json: try StateStore.json(try responses.response(id, owner: client.name).response))
    }

    /// `POST /v1/responses/ID/cancel`.
    func cancelResponse(_ id: String, _ client: Client, _ reply: inout ReplyWriter) throws(APIError) {
        let stored = try responses.response(id, owner: client.name)
        let response = try StateStore.json(stored.response)
        guard response["background"] == true else {
            throw .invalid(
                "response_id",
                "Only a response with `background: true` can be cancelled. To end another, close its request.")
        }
        guard !stored.state.isTerminal else { return reply.reply(status: 200, json: response) }
        _ = try responses.use { store throws(SessionStoreError) in
            try store.requestCancel(id: id, owner: client.name)
        }
        let cancelled = ResponsesReply.changed(response, to: .cancelled)
        responses.finish(id, .cancelled, cancelled, nil)
        // Its answer may have come first.
        reply.reply(status: 200, json: try StateStore.json(try responses.response(id, owner: client.name).response))
    }

    /// `GET /v1/responses/ID/input_items`.
    func answerResponseInput(
        _ id: String, _ client: Client, _ request: borrowing FastCGIRequest, _ reply: inout ReplyWriter
    ) throws(APIError) {
        var items = try StateStore.json(try responses.response(id, owner: client.name).input).arrayValue ?? []
        var limit = 20
        for (name, value) in Self.query(request) {
            switch name {
            case "limit": limit = try PageLimit.read(value, upTo: 100)
            case "order" where value == "desc": items.reverse()
            case "after":
                if let place = items.firstIndex(where: { $0["id"]?.stringValue == value }) {
                    items.removeFirst(place + 1)
                }
            default: break
            }
        }
        let shown = items.prefix(limit)
        reply.reply(
            status: 200,
            json: [
                "object": "list", "data": .array(Array(shown)), "first_id": shown.first?["id"] ?? nil,
                "last_id": shown.last?["id"] ?? nil, "has_more": .bool(items.count > shown.count),
            ])
    }

    private func conversation(of id: String, _ client: Client) throws(APIError) -> Conversation {
        let stored: StoredResponse?
        do throws(APIError) {
            stored = try responses.response(id, owner: client.name)
        } catch {
            guard error.kind == .notFound else { throw error }
            stored = nil
        }
        guard let stored, let conversation = Conversation(try StateStore.json(stored.conversation)) else {
            throw .invalid(
                "previous_response_id",
                "There is no response `\(id.prefix(64).filter { $0.isASCII && !$0.isWhitespace })`: it was never stored, has "
                    + "expired or was deleted. Send the whole conversation as `input`.")
        }
        guard stored.state.isTerminal else {
            throw .invalid(
                "previous_response_id", "That response is not ready. Fetch it until it is, then continue it.")
        }
        return conversation
    }

    private static func row(
        _ wanted: ResponsesRequest, _ id: String, _ state: StoredResponse.State, _ response: JSONValue,
        _ answer: Answer?, _ client: Client, _ created: Int
    ) -> StoredResponse {
        StoredResponse(
            id: id, owner: client.name, state: state, previousID: wanted.previousID,
            response: StateStore.text(response),
            input: StateStore.text(.array(wanted.inputItems(responseID: id))),
            conversation: StateStore.text(wanted.conversation(with: answer).json), created: created,
            lastUsed: WallClock.now.seconds)
    }

    private static func state(of response: JSONValue) -> StoredResponse.State {
        response["status"]?.stringValue.flatMap { StoredResponse.State(rawValue: $0) } ?? .completed
    }
}
