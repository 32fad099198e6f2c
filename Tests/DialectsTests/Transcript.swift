import Dialects
import Foundation
import Testing

/// A conversation that was recorded with the real CLI (`Scripts/record`), in `Tests/Transcripts/NAME`.
struct Transcript: Sendable, CustomTestStringConvertible {
    /// The recorded conversations of one request each.
    static let requests = having("request.json")
    /// Those of several requests that one process answered.
    static let lives = having("requests.json")

    /// What takes the place of the time, of the ids of the request, the run and the response; `Scripts/record` writes the same.
    static let context = ReplyContext(
        requestID: "req-golden", created: 1_700_000_000, fingerprint: "fp_claude_2.1.330")
    static let directContext = DirectContext(
        id: "00000000-0000-4000-8000-00000000aaaa", sessionID: "00000000-0000-4000-8000-00000000bbbb",
        workingDirectory: "/srv/w")
    static let policy = DirectPolicy(allowsMCPServers: true)
    static let responseID = "resp_0000000000000000000000000000aaaa"

    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Transcripts")
    private static var names: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []).filter { !$0.hasPrefix(".") }.sorted()
    }

    private static func having(_ file: String) -> [Transcript] {
        names.map { Transcript(name: $0) }.filter { FileManager.default.fileExists(atPath: $0.url(file).path) }
    }

    let name: String

    var testDescription: String { name }

    func bytes(_ file: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: url(file))) }

    /// A recorded file's lines, each without its newline.
    func lines(_ file: String) throws -> [String] {
        String(decoding: try bytes(file), as: UTF8.self).split(separator: "\n").map { String($0) }
    }

    func request() throws -> (path: String, body: JSONValue) {
        let json = try JSONParser.parse(bytes("request.json"))
        return (try #require(json["path"]?.stringValue), try #require(json["body"]))
    }

    /// The tools that the service was set to give chats.
    func hostTools() throws -> [ToolRule] {
        let json = try JSONParser.parse(bytes("request.json"))
        return (json["settings"]?["CHAT_TOOLS"]?.stringValue ?? "").split(separator: ",").compactMap {
            ToolRule(String($0))
        }
    }

    /// The expected reply, or with GOLDEN=1 the given one, which is written to its file.
    func golden(_ reply: Replay.Reply) throws -> String {
        if ProcessInfo.processInfo.environment["GOLDEN"] == "1" {
            for file in ["response.json", "response.sse"] { try? FileManager.default.removeItem(at: url(file)) }
            try reply.text.write(to: url(reply.file), atomically: true, encoding: .utf8)
        }
        return String(decoding: try bytes(reply.file), as: UTF8.self)
    }

    private func url(_ file: String) -> URL { Self.root.appending(path: name).appending(path: file) }
}
