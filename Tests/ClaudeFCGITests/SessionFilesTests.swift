import Dialects
import Glibc
import Testing

@testable import ClaudeFCGI

private let id = "3f0c0c1e-5a55-4c39-9a4e-0a3c5b0b8a11"

/// A service's directories, with a configuration directory of the CLI's.
private final class Place {
    let base: TemporaryDirectory
    let settings: Settings
    let transcript: SessionTranscript

    init() throws {
        base = try TemporaryDirectory()
        settings = try Settings(environment: [
            "RUN_DIR": base.path + "/run", "STATE_DIR": base.path + "/state", "CLAUDE_CONFIG_DIR": base.path + "/cli",
            "PROXY_API_KEY": "k",
        ])
        transcript = SessionTranscript(
            id: id, settings: settings, environment: ClaudeEnvironment(service: settings.environment))
    }

    var cli: String { base.path + "/cli" }

    func write(_ path: String, _ text: String) throws {
        let slash = try #require(path.lastIndex(of: "/"))
        try Files.makeDirectory(String(path[..<slash]))
        try Files.replace(path, with: Array(text.utf8))
    }
}

@Suite struct SessionTranscriptTests {
    @Test func `what the CLI has made is taken over, whatever the CLI calls the directory`() throws {
        for name in ["-srv-dir", "-a-shortened-name-1a2b"] {
            let place = try Place()
            let made = "\(place.cli)/projects/\(name)/\(id).jsonl"
            try place.write(made, "{}\n{}\n")
            #expect(try place.transcript.take(workingDirectory: "/srv/dir") == 6)
            #expect(!Files.exists(made))
            #expect(try Files.read(place.transcript.path, limitBytes: 99) == "{}\n{}\n")
        }
    }

    @Test func `a file that is there already is measured`() throws {
        let place = try Place()
        try place.write(place.transcript.path, "{}\n")
        #expect(try place.transcript.take(workingDirectory: "/work") == 3)
    }

    @Test func `a CLI that has kept nothing is a failure`() throws {
        let place = try Place()
        #expect(throws: FileError.self) { try place.transcript.take(workingDirectory: "/work") }
    }

    @Test func `what a failed turn has left is cut off`() throws {
        let place = try Place()
        try place.write(place.transcript.path, "{}\n{\"half")
        try place.transcript.cut(toBytes: 3)
        #expect(try Files.read(place.transcript.path, limitBytes: 99) == "{}\n")
        try place.transcript.cut(toBytes: 3)
    }

    @Test func `a transcript that is missing or too short is gone`() throws {
        let place = try Place()
        let missing = try #require(throws: APIError.self) { try place.transcript.cut(toBytes: 3) }
        #expect(missing.kind == .sessionGone)
        try place.write(place.transcript.path, "{}")
        let error = try #require(throws: APIError.self) { try place.transcript.cut(toBytes: 3) }
        #expect(error.kind == .sessionGone && error.status == 410)
        #expect(throws: APIError.self) { try place.transcript.messages(bytes: 3) }
    }

    @Test func `a branch gets what the last whole turn left`() throws {
        let place = try Place()
        try place.write(place.transcript.path, "{}\n{\"half")
        let copy = place.base.path + "/copy.jsonl"
        try place.transcript.copy(to: copy, bytes: 3)
        #expect(try Files.read(copy, limitBytes: 99) == "{}\n")
    }

    @Test func `all that the CLI keeps of a session goes, and nothing of others`() throws {
        let place = try Place()
        let other = "00000000-0000-4000-8000-000000000000"
        let gone = [
            place.transcript.path, "\(place.cli)/session-env/\(id)/x", "\(place.cli)/file-history/\(id)/y",
            "\(place.cli)/todos/\(id)-agent.json", "\(place.cli)/projects/-named/\(id)/tool-results/z",
            "\(place.cli)/projects/-own/memory/m",
        ]
        let kept = [
            "\(place.cli)/session-env/\(other)/x", "\(place.cli)/projects/-named/\(other).jsonl",
            "\(place.cli)/.credentials.json",
        ]
        for path in gone + kept { try place.write(path, "x") }
        place.transcript.remove(ownDirectory: "/own")
        #expect(gone.filter { Files.exists($0) } == [])
        #expect(kept.allSatisfy { Files.exists($0) })
    }
}

private struct NoFile: Error {}

@Suite struct RunEventLogTests {
    private func path(_ base: TemporaryDirectory) -> String { base.path + "/run.sse" }

    @Test(arguments: 0...4) func `a reader gets whole events from behind a number`(_ last: Int) throws {
        let base = try TemporaryDirectory()
        let events = (1...4).map { "id: \($0)\nevent: text\ndata: {\"text\":\"\($0)\"}\n\n" }
        try Files.replace(path(base), with: Array((events.joined() + "id: 5\nevent: te").utf8))
        guard var reader = RunEventReader(path: path(base), after: last) else { throw NoFile() }
        var text = ""
        while true {
            let next = reader.next()
            if next.isEmpty { break }
            text += String(decoding: next, as: UTF8.self)
        }
        #expect(text == events.dropFirst(last).joined())
    }

    @Test func `events that are written piece by piece come out whole`() throws {
        let base = try TemporaryDirectory()
        let events = (1...3).map { "id: \($0)\ndata: {\"n\":\($0)}\n\n" }
        try Files.replace(path(base), with: [])
        guard var reader = RunEventReader(path: path(base), after: 1) else { throw NoFile() }
        let descriptor = unsafe open(path(base), O_WRONLY | O_APPEND)
        defer { close(descriptor) }
        var text = ""
        for byte in events.joined().utf8 {
            var byte = byte
            _ = unsafe write(descriptor, &byte, 1)
            let piece = String(decoding: reader.next(), as: UTF8.self)
            #expect(piece.isEmpty || piece.hasSuffix("\n\n"))
            text += piece
        }
        #expect(text == events.dropFirst(1).joined())
    }

    /// What a reader gets that was there before the writer died, and one that comes afterwards.
    private func endings(of written: String, at path: String) throws -> [String] {
        try Files.replace(path, with: Array(written.utf8))
        guard var before = RunEventReader(path: path, after: 0) else { throw NoFile() }
        var text = String(decoding: before.next(), as: UTF8.self)
        RunEventReader.end(path: path, with: APIError(.internal, "It ended."))
        guard var behind = RunEventReader(path: path, after: 0) else { throw NoFile() }
        text += String(decoding: before.next(), as: UTF8.self)
        #expect(before.end != nil && behind.next() == Array(text.utf8) && behind.end == before.end)
        return text.split(separator: "\n\n").map { String($0) }
    }

    private static let half = "id: 2\nevent: text\ndata: {\"text\":\"2\"}\n"

    @Test(arguments: 0...half.utf8.count)
    func `a dead writer's stream ends with an error behind its last whole event`(_ length: Int) throws {
        let base = try TemporaryDirectory()
        let left = String(decoding: Self.half.utf8.prefix(length), as: UTF8.self)
        let events = try endings(of: "id: 1\ndata: {}\n\n" + left, at: path(base))
        #expect(events.count == 2 && events.first == "id: 1\ndata: {}")
        #expect(events.last?.hasPrefix("id: 2\nevent: error\ndata: {") == true)
        #expect(events.last?.contains("\"internal_error\"") == true)
    }

    @Test(arguments: ["result", "error"]) func `a stream that has its end gets no other`(_ name: String) throws {
        let base = try TemporaryDirectory()
        let written = "id: 1\ndata: {}\n\nid: 2\nevent: \(name)\ndata: {}\n\n"
        #expect(try endings(of: written, at: path(base)).joined(separator: "\n\n") + "\n\n" == written)
    }

    @Test func `of many who end a stream one does`() async throws {
        let base = try TemporaryDirectory()
        let path = path(base)
        for _ in 0..<20 {
            try Files.replace(path, with: Array("id: 1\ndata: {}\n\nid: 2\nda".utf8))
            await withTaskGroup { group in
                for number in 0..<4 {
                    group.addTask { RunEventReader.end(path: path, with: APIError(.internal, "By \(number).")) }
                }
            }
            let text = try Files.read(path, limitBytes: 9999)
            #expect(text.split(separator: "event: error").count == 2 && text.hasSuffix("}\n\n"))
        }
    }

    @Test func `a stream that was half ended by another that died is ended`() throws {
        let base = try TemporaryDirectory()
        let written = "id: 1\ndata: {}\n\nid: 2\nda\nid: 2\nevent: error\ndata: {\"mes"
        let events = try endings(of: written, at: path(base))
        #expect(events.count == 2 && events.last?.hasPrefix("id: 2\nevent: error\ndata: {") == true)
        #expect(events.last?.hasSuffix("}") == true)
    }
}

@Suite struct FilesMovingTests {
    @Test func `a tree is copied with links as links`() throws {
        let base = try TemporaryDirectory()
        try Files.makeDirectory(base.path + "/a/b")
        try Files.replace(base.path + "/a/b/f", with: Array("text".utf8))
        try #require(unsafe symlink("b/f", base.path + "/a/l") == 0)
        try Files.copyTree(base.path + "/a", to: base.path + "/c")
        #expect(try Files.read(base.path + "/c/b/f", limitBytes: 9) == "text")
        #expect(Files.linkTarget(base.path + "/c/l") == "b/f")
    }
}
