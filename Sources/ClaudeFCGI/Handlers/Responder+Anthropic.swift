import Admission
import Dialects
import FastCGI

extension Responder {
    /// `POST /v1/messages`.
    @inline(never) func messages(
        _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        var run = try decodeChat(request, &log, MessagesRequest.decode)
        let session = try SessionRun(&run, of: client, in: sessions)
        defer { session.end() }
        let form: ReplyForm =
            run.isStreaming ? .stream(MessagesStream()) : .whole { answers, _ in MessagesReply.whole(answers[0]) }
        try pipeline.run(
            try choices([run], &log), as: form, route: .messages, client: client, request: &request, reply: &reply,
            log: &log, hooks: session.hooks())
    }

    /// `POST /v1/messages/count_tokens`.
    @inline(never) func countTokens(
        _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let run = try decode(request, &log, MessagesRequest.decodeCount)
        try pipeline.run(
            try choices([run], &log), as: .whole { answers, _ in MessagesReply.count(answers[0]) }, route: .countTokens,
            client: client, request: &request, reply: &reply, log: &log)
    }
}
