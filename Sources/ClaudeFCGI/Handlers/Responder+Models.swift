import Dialects
import FastCGI

extension Responder {
    /// `GET /v1/models`, in Anthropic's shape for its SDKs: they say which version of that API they speak.
    func answerModels(_ request: borrowing FastCGIRequest, _ reply: inout ReplyWriter) throws(APIError) {
        let catalog = try models.catalog()
        guard request.parameter("HTTP_ANTHROPIC_VERSION") != nil else {
            return reply.reply(status: 200, json: ModelsReply.list(catalog))
        }
        let page = try ModelsReply.Page(query: Self.query(request))
        reply.reply(status: 200, json: ModelsReply.messagesList(catalog, page: page))
    }

    /// `GET /v1/models/ID`.
    func answerModel(
        _ id: String, _ request: borrowing FastCGIRequest, _ reply: inout ReplyWriter
    ) throws(APIError) {
        let catalog = try models.catalog()
        var model = catalog.models.first { $0.id == id }
        if model == nil {
            _ = try catalog.resolve(id)
            model = ModelCatalog.Model(id: id, resolvedID: id, displayName: id)
        }
        guard let model else { return }
        let isAnthropic = request.parameter("HTTP_ANTHROPIC_VERSION") != nil
        reply.reply(status: 200, json: isAnthropic ? ModelsReply.messagesEntry(model) : ModelsReply.entry(model))
    }

    /// The names and values of a request's query.
    static func query(_ request: borrowing FastCGIRequest) -> [(name: String, value: String)] {
        let query = (request.parameter("REQUEST_URI") ?? "").drop { $0 != "?" }.dropFirst()
        return query.split(separator: "&").map { pair in
            let name = pair.prefix { $0 != "=" }
            return (PercentEncoding.decode(name), PercentEncoding.decode(pair.dropFirst(name.count + 1)))
        }
    }
}
