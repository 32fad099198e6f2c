import Admission
import Dialects
import FastCGI

extension Responder {
    /// `POST /v1/messages`.
    func messages(
        _ client: AdmissionClient, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let run = try decode(request, &log) { json throws(APIError) in try MessagesRequest.decode(json) }
        let form: ReplyForm =
            run.isStreaming ? .stream(MessagesStream()) : .whole { answers, _ in MessagesReply.whole(answers[0]) }
        try pipeline.run(
            try choices([run], &log), as: form, route: .messages, client: client, request: &request, reply: &reply,
            log: &log)
    }

    /// `POST /v1/messages/count_tokens`.
    func countTokens(
        _ client: AdmissionClient, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let run = try decode(request, &log, MessagesRequest.decodeCount)
        try pipeline.run(
            try choices([run], &log), as: .whole { answers, _ in MessagesReply.count(answers[0]) }, route: .countTokens,
            client: client, request: &request, reply: &reply, log: &log)
    }
}
