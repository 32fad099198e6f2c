/// Checks a caller's `mcpServers`, and leaves nothing in them that is not checked.
enum MCPServers {
    /// What a server has, by its type.
    private static let members: [String: Set<String>] = [
        "stdio": ["type", "command", "args", "env"], "http": ["type", "url", "headers"],
        "sse": ["type", "url", "headers"],
    ]
    private static let longestName = 64

    /// The servers in the form of the CLI's configuration.
    ///
    /// - Parameter ignored: Gets the members that have no effect, as paths.
    static func decode(_ servers: FieldReader, ignored: inout [String]) throws(APIError) -> JSONObject {
        var checked = JSONObject()
        for name in servers.names {
            let path = servers.path(name)
            // Two underscores separate server and tool in a tool's name; `client` is where chats have their caller's tools.
            guard name.utf8.allSatisfy(isNameByte), !name.isEmpty, name.utf8.count <= longestName,
                !name.contains("__"), name != ToolNames.server
            else {
                throw .invalid(
                    "mcpServers",
                    "`mcpServers`: a server's name has 1 to \(longestName) letters, digits, `-` and `_`, no two `_` in a "
                        + "row, and is not `\(ToolNames.server)`.")
            }
            let server = try FieldReader(try servers.required(name), path: path)
            let type = try server.choice("type", of: ["stdio", "http", "sse"]) ?? "stdio"
            checked[name] = .object(try self.server(server, type: type))
            for member in server.names where members[type]?.contains(member) != true {
                ignored.append(server.path(member))
            }
        }
        return checked
    }

    private static func server(_ server: FieldReader, type: String) throws(APIError) -> JSONObject {
        var object = JSONObject([("type", .string(type))])
        if type == "stdio" {
            _ = try server.required("command")
            let command = try server.string("command") ?? ""
            guard !command.isBlank else {
                throw .invalid(server.path("command"), "`\(server.path("command"))` is blank.")
            }
            object["command"] = .string(command)
            if let arguments = try server.strings("args") { object["args"] = .array(arguments.map { .string($0) }) }
            if let environment = try strings(server, "env") { object["env"] = environment }
        } else {
            _ = try server.required("url")
            let url = try server.string("url") ?? ""
            try MediaBlocks.requireHTTP(url, path: server.path("url"))
            object["url"] = .string(url)
            if let headers = try strings(server, "headers") { object["headers"] = headers }
        }
        return object
    }

    /// An object whose members are all strings.
    private static func strings(_ server: FieldReader, _ key: String) throws(APIError) -> JSONValue? {
        guard let object = try server.object(key) else { return nil }
        for member in object.members where member.value.stringValue == nil {
            throw .invalid(server.path(key), "`\(server.path(key))` must be an object of strings.")
        }
        return .object(object)
    }

    static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }
}
