/// Writes the replies of `GET /v1/models` and `GET /v1/models/ID`.
public enum ModelsReply {
    /// A part of a list, as Anthropic's API asks for it.
    public struct Page: Sendable, Equatable {
        /// How many models at most.
        public var limit = 20
        /// The list begins behind this one.
        public var afterID: String?
        /// The list ends before this one.
        public var beforeID: String?

        /// From a query such as `limit=5&after_id=opus`.
        ///
        /// - Throws: ``APIError`` naming the parameter.
        public init(query: [(name: String, value: String)]) throws(APIError) {
            for (name, value) in query {
                switch name {
                case "limit": limit = try PageLimit.read(value, upTo: 1000)
                case "after_id": afterID = value
                case "before_id": beforeID = value
                default: break
                }
            }
        }
    }

    /// The list in OpenAI's shape.
    public static func list(_ catalog: ModelCatalog) -> JSONValue {
        ["object": "list", "data": .array(catalog.models.map { entry($0) })]
    }

    /// One model in OpenAI's shape.
    public static func entry(_ model: ModelCatalog.Model) -> JSONValue {
        // The CLI does not say when a model came; the vendor's SDK types want a number.
        ["id": .string(model.id), "object": "model", "created": 0, "owned_by": "anthropic"]
    }

    /// A page of the list in Anthropic's shape.
    public static func messagesList(_ catalog: ModelCatalog, page: Page) -> JSONValue {
        var models = catalog.models[...]
        if let id = page.afterID, let place = models.firstIndex(where: { $0.id == id }) {
            models = models[(place + 1)...]
        }
        var hasMore = models.count > page.limit
        var shown = models.prefix(page.limit)
        if let id = page.beforeID, let place = models.firstIndex(where: { $0.id == id }) {
            hasMore = place - models.startIndex > page.limit
            shown = models[..<place].suffix(page.limit)
        }
        return [
            "data": .array(shown.map { messagesEntry($0) }), "has_more": .bool(hasMore),
            "first_id": shown.first.map { .string($0.id) } ?? nil, "last_id": shown.last.map { .string($0.id) } ?? nil,
        ]
    }

    /// One model in Anthropic's shape.
    public static func messagesEntry(_ model: ModelCatalog.Model) -> JSONValue {
        [
            "type": "model", "id": .string(model.id), "display_name": .string(model.displayName),
            "created_at": "1970-01-01T00:00:00Z", "lifecycle": "active",
        ]
    }
}
