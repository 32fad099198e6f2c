/// Writes the replies of `GET /v1/models` and `GET /v1/models/ID`, in OpenAI's shape.
public enum ModelsReply {
    /// The list.
    public static func list(_ catalog: ModelCatalog) -> JSONValue {
        ["object": "list", "data": .array(catalog.models.map { entry($0) })]
    }

    /// One model.
    public static func entry(_ model: ModelCatalog.Model) -> JSONValue {
        // The CLI does not say when a model came; the vendor's SDK types want a number.
        ["id": .string(model.id), "object": "model", "created": 0, "owned_by": "anthropic"]
    }
}
