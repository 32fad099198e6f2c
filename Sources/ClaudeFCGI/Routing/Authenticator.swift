import Dialects

/// Knows the service's keys and whose they are.
struct Authenticator: Sendable {
    private let key: [UInt8]

    init(key: String) { self.key = Array(key.utf8) }

    /// The name of the client whose key this is.
    ///
    /// - Parameters:
    ///   - authorization: The `Authorization` header; its scheme is not case-sensitive (RFC 9110), the key is.
    ///   - apiKey: The `x-api-key` header, as Anthropic's SDKs send it.
    /// - Throws: ``APIError`` auth_error.
    func clientName(authorization: String?, apiKey: String?) throws(APIError) -> String {
        var isKnown = false
        if let bearer = authorization.flatMap({ Self.bearer($0) }), matches(bearer) { isKnown = true }
        if let apiKey, matches(apiKey) { isKnown = true }
        guard isKnown else {
            throw APIError(
                .auth,
                authorization == nil && apiKey == nil
                    ? "No key was sent. Send the service's key as `Authorization: Bearer KEY` or `x-api-key: KEY`."
                    : "The key is not one of this service's. Send it as `Authorization: Bearer KEY` or `x-api-key: "
                        + "KEY`.")
        }
        return "default"
    }

    private static func bearer(_ header: String) -> String? {
        let parts = header.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
        return String(parts[1]).trimmed
    }

    /// Takes the same time for every wrong key of one length, so that no answer's time tells how much of a guess is right.
    private func matches(_ candidate: String) -> Bool {
        let bytes = Array(candidate.utf8)
        var difference: UInt8 = bytes.count == key.count ? 0 : 1
        for index in key.indices { difference |= key[index] ^ (index < bytes.count ? bytes[index] : 0) }
        return difference == 0
    }
}
