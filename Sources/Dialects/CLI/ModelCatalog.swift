/// The models that the installed CLI offers.
public struct ModelCatalog: Sendable, Equatable {
    /// One of the CLI's models.
    public struct Model: Sendable, Equatable {
        /// What the CLI is told: an alias such as `sonnet`, or a full id.
        public var id: String
        /// The full id behind an alias; equal to ``id`` for a full id.
        public var resolvedID: String
        /// The name people know it by.
        public var displayName: String

        /// What the CLI is told in its place, for an operator's own name.
        public var target: String?

        /// A model.
        public init(id: String, resolvedID: String, displayName: String, target: String? = nil) {
            self.id = id
            self.resolvedID = resolvedID
            self.displayName = displayName
            self.target = target
        }
    }

    /// Aliases that are always accepted, as the Node proxy did.
    public static let fixedAliases = ["opus", "sonnet", "haiku"]

    /// The CLI's version; nil when it is unknown.
    public var version: ClaudeVersion?
    /// Aliases first, in the CLI's order, then the full ids behind them.
    public var models: [Model]
    /// The full id behind the CLI's own choice; nil when it is unknown.
    public var defaultID: String?

    /// A catalog.
    public init(version: ClaudeVersion?, models: [Model], defaultID: String? = nil) {
        self.version = version
        self.models = models
        self.defaultID = defaultID
    }

    /// From the CLI's answer to `initialize`.
    ///
    /// Source: transcript `initialize`.
    public init(initializeResponse response: JSONValue) {
        var aliases: [Model] = []
        var full: [Model] = []
        for entry in response["models"]?.arrayValue ?? [] {
            guard let id = entry["value"]?.stringValue, id != "default" else { continue }
            let resolved = entry["resolvedModel"]?.stringValue ?? id
            let name = entry["displayName"]?.stringValue ?? id
            aliases.append(Model(id: id, resolvedID: resolved, displayName: name))
            if resolved != id, !full.contains(where: { $0.id == resolved }) {
                full.append(Model(id: resolved, resolvedID: resolved, displayName: name))
            }
        }
        for alias in Self.fixedAliases where !aliases.contains(where: { $0.id == alias }) {
            aliases.append(
                Model(id: alias, resolvedID: alias, displayName: alias.prefix(1).uppercased() + alias.dropFirst()))
        }
        let chosen = response["models"]?.arrayValue?.first { $0["value"] == "default" }
        self.init(
            version: response["claude_code_version"]?.stringValue.flatMap { ClaudeVersion($0) }, models: aliases + full,
            defaultID: chosen?["resolvedModel"]?.stringValue)
    }

    /// The catalog with names of the operator's own: a client that can't be told another model's name finds its own.
    ///
    /// - Parameter aliases: A name and what stands behind it, in order.
    public func adding(_ aliases: [(name: String, model: String)]) -> ModelCatalog {
        var catalog = self
        for (name, model) in aliases {
            let known = models.first { $0.id.lowercased() == model.lowercased() }
            // The operator's word counts, also for a name that the CLI has.
            catalog.models.removeAll { $0.id.lowercased() == name.lowercased() }
            catalog.models.append(
                Model(
                    id: name, resolvedID: known?.resolvedID ?? model, displayName: known?.displayName ?? model,
                    target: known?.id ?? model))
        }
        return catalog
    }

    /// The full id behind a name that ``resolve(_:)`` gave; behind the CLI's own choice for nil.
    public func fullID(of model: String?) -> String? {
        guard let model else { return defaultID }
        return models.first { $0.id == model }?.resolvedID ?? model
    }

    /// What tells this CLI from another: OpenAI's `system_fingerprint`.
    public var fingerprint: String { "fp_claude_\(version.map { "\($0)" } ?? "code")" }

    /// The model as the CLI takes it.
    ///
    /// Accepted: what the CLI lists, and any other full id of a Claude model, which goes to the CLI as it is.
    ///
    /// - Throws: ``APIError`` model_not_found naming what exists.
    public func resolve(_ name: String) throws(APIError) -> String {
        let lowered = name.lowercased()
        if let known = models.first(where: { $0.id.lowercased() == lowered }) { return known.target ?? known.id }
        let isPlain = name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: ":"), UInt8(ascii: "/"), UInt8(ascii: "@"), UInt8(ascii: "["), UInt8(ascii: "]"):
                true
            default: false
            }
        }
        if isPlain, name.utf8.count <= 200, lowered.contains("claude-") || Self.isSuffixedAlias(lowered, models) {
            return name
        }
        let names = models.map(\.id).joined(separator: ", ")
        throw APIError(
            .modelNotFound,
            "The model `\(name.prefix(100))` is not served. Served are: \(names), and full ids of "
                + "Claude models.",
            parameter: "model")
    }

    /// `opus[1m]`: an alias with the CLI's suffix for a long context.
    private static func isSuffixedAlias(_ name: String, _ models: [Model]) -> Bool {
        guard name.hasSuffix("[1m]") else { return false }
        return models.contains { $0.id.lowercased() == name.dropLast("[1m]".count) }
    }
}
