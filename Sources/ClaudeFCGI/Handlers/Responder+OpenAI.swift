import Admission
import Dialects
import FastCGI

extension Responder {
    /// `POST /v1/chat/completions`.
    @inline(never) func chatCompletions(
        _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        var run = try decodeChat(request, &log, ChatCompletionsRequest.decode)
        let session = try SessionRun(&run, of: client, in: sessions)
        defer { session.end() }
        let runs = try choices([run], &log)
        var context = context(log)
        context.sessionID = session.id
        let options = run.reply
        let form: ReplyForm =
            run.isStreaming
            ? .stream(ChatCompletionsStream(context: context, options: options, choiceCount: runs.count))
            : .whole { [context] answers, _ in ChatCompletionsReply.whole(answers, options: options, context: context) }
        try pipeline.run(
            runs, as: form, route: .chatCompletions, client: client, request: &request, reply: &reply, log: &log,
            hooks: session.hooks())
    }

    /// `POST /v1/completions`.
    @inline(never) func completions(
        _ client: Client, _ request: inout FastCGIRequest, _ reply: inout ReplyWriter, _ log: inout RequestLog
    ) throws(APIError) {
        let requests = try decode(request, &log, CompletionsRequest.decode)
        let runs = try choices(requests, &log)
        let context = context(log)
        let prompts = runs.map { run in
            run.reply.echoesPrompt ? run.turns.last?.blocks.first?["text"]?.stringValue ?? "" : ""
        }
        let options = runs.first?.reply ?? ReplyOptions()
        let form: ReplyForm =
            runs.first?.isStreaming == true
            ? .stream(CompletionsStream(context: context, options: options, prompts: prompts))
            : .whole { answers, _ in CompletionsReply.whole(answers, prompts: prompts, context: context) }
        try pipeline.run(
            runs, as: form, route: .completions, client: client, request: &request, reply: &reply, log: &log)
    }
}
