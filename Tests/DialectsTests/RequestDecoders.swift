import Dialects
import Testing

/// One dialect's request decoder with a request that it takes.
struct RequestDecoder: Sendable, CustomTestStringConvertible {
    static let all = [openAI, anthropic, direct]

    static let openAI = RequestDecoder(
        dialect: .openAI, body: ["model": "sonnet", "messages": [["role": "user", "content": "Hi"]]],
        decode: { json throws(APIError) in try ChatCompletionsRequest.decode(json) })
    static let anthropic = RequestDecoder(
        dialect: .anthropic,
        body: ["model": "sonnet", "max_tokens": 10, "messages": [["role": "user", "content": "Hi"]]],
        decode: { json throws(APIError) in try MessagesRequest.decode(json) })
    static let direct = RequestDecoder(
        dialect: .direct, body: ["prompt": "Hi"],
        decode: { json throws(APIError) in try DirectRequest.decode(json, policy: DirectPolicy()) })

    let dialect: Dialect
    let body: JSONValue
    let decode: @Sendable (JSONValue) throws(APIError) -> RunRequest

    var testDescription: String { dialect.rawValue }

    /// The taken request with one member set, or removed.
    func with(_ name: String, _ value: JSONValue?) throws(APIError) -> RunRequest {
        var object = body.objectValue ?? JSONObject()
        object[name] = value
        return try decode(.object(object))
    }

    /// The error for the taken request with one member set.
    func error(with name: String, _ value: JSONValue?) throws -> APIError {
        try #require(throws: APIError.self) { try with(name, value) }
    }
}
