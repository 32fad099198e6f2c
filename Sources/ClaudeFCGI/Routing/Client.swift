import Admission
import Dialects

/// Whose a request is, and what the operator lets them have.
struct Client: Sendable, Equatable {
    /// The name and the limits that the gate knows.
    var admission: AdmissionClient
    /// Where their runs may work; nil for where the service's may.
    var directories: [String]?
    /// The tools that they may name; nil for those of the service.
    var tools: [String]?

    init(name: String) { admission = AdmissionClient(name: name) }

    /// The key's name.
    var name: String { admission.name }

    /// Sets a limit in the keys file's words.
    ///
    /// - Returns: False where that is none.
    mutating func set(_ name: String, _ value: String) -> Bool {
        switch name {
        case "concurrency":
            guard let number = Int(value), number >= 1 else { return false }
            admission.concurrency = number
        case "queue":
            guard let number = Int(value), number >= 0 else { return false }
            admission.queueLimit = number
        case "directories":
            let paths = value.split(separator: ":").map { String($0) }
            guard !paths.isEmpty, paths.allSatisfy({ $0.hasPrefix("/") }) else { return false }
            directories = paths
        case "tools":
            let names = value.split(separator: ",").map { String($0) }
            guard names.allSatisfy({ DirectRequest.tools.contains($0) || $0.hasPrefix("mcp__") }) else { return false }
            tools = names
        default: return false
        }
        return true
    }

    /// The limits as the keys file has them, for a person to read.
    var limitsText: [String] {
        [
            admission.concurrency.map { "concurrency=\($0)" }, admission.queueLimit.map { "queue=\($0)" },
            directories.map { "directories=" + $0.joined(separator: ":") },
            tools.map { "tools=" + $0.joined(separator: ",") },
        ].compactMap { $0 }
    }

    /// Where their runs may work.
    func directories(_ settings: Settings) -> [String] { directories ?? settings.allowedDirectories }

    /// What they may ask of `/api/run`.
    func policy(_ settings: Settings) -> DirectPolicy {
        DirectPolicy(
            tools: Self.intersection(settings.allowedTools, tools), permissionModes: settings.permissionModes,
            allowsMCPServers: settings.allowsMCPServers, timeoutLimit: settings.requestTimeout)
    }

    /// What both allow: the key's names narrow the service's rules.
    private static func intersection(_ service: [String]?, _ key: [String]?) -> [String]? {
        guard let key else { return service }
        guard let service else { return key }
        return service.filter { rule in key.contains(String(rule.prefix { $0 != "(" })) }
    }
}
