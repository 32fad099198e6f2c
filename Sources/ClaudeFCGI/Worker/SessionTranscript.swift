// The file in which the CLI keeps a conversation with tools, and what it keeps beside it.
//
// The CLI appends to it, one JSON object a line, and is started on it by path. How long it was after the last whole turn is
// in the store: before each turn what is behind that is cut off, so a turn that failed, or whose responder died, leaves
// nothing. A new conversation's file is made by the CLI among its own (CONFIG/projects/DIRECTORY/ID.jsonl) and moved here
// when its first turn is whole; what it keeps beside it (CONFIG/*/ID, CONFIG/projects/*/ID) stays where it is.
//
// Seen with CLI 2.1.251 and 2.1.332: `--resume=/a/path/ID.jsonl` goes on in that file whatever the directory; the file is
// whole only when the process has ended.

import Dialects

/// One conversation's file.
struct SessionTranscript: Sendable {
    /// Longer transcripts are not read for a caller: the CLI compacts a conversation long before.
    private static let readLimitBytes = 256 << 20

    /// The conversation's id in the CLI.
    let id: String
    private let directory: String
    private let configurationDirectory: String?

    init(id: String, settings: Settings, environment: ClaudeEnvironment) {
        self.id = id
        directory = settings.transcriptsDirectory
        configurationDirectory = environment.configurationDirectory
    }

    /// Where the file is.
    var path: String { "\(directory)/\(id).jsonl" }

    /// Brings the file to where the last whole turn left it.
    ///
    /// - Throws: ``APIError`` session_gone when it is not there any more.
    func cut(toBytes bytes: Int) throws(APIError) {
        guard let size = Files.size(path), size >= bytes, bytes > 0 else { throw Self.gone }
        guard size > bytes else { return }
        do throws(FileError) {
            try Files.cut(path, toBytes: bytes)
        } catch {
            throw APIError(
                .internal, "The session can't be continued on the server now. Try again later.", cause: "\(error)")
        }
    }

    /// Copies the conversation as of its last whole turn.
    func copy(to copy: String, bytes: Int) throws(APIError) {
        guard let size = Files.size(path), size >= bytes, bytes > 0 else { throw Self.gone }
        do throws(FileError) {
            try Files.copy(path, to: copy, bytes: bytes)
        } catch {
            throw APIError(
                .internal, "The session can't be branched on the server now. Try again later.", cause: "\(error)")
        }
    }

    /// Takes over what the CLI has written in a turn, the process having ended.
    ///
    /// - Parameter workingDirectory: Where the process stood, without symbolic links.
    /// - Returns: The file's length, all of it on the disk.
    func take(workingDirectory: String) throws(FileError) -> Int {
        if !Files.exists(path) {
            guard let made = madeByCLI(workingDirectory) else {
                throw FileError(call: "find", path: path, number: Files.notFound)
            }
            try Files.makeDirectory(directory)
            try Files.move(made, to: path)
        }
        try Files.flushToDisk(path)
        return Files.size(path) ?? 0
    }

    private func madeByCLI(_ workingDirectory: String) -> String? {
        guard let configurationDirectory else { return nil }
        let projects = configurationDirectory + "/projects"
        let expected = "\(projects)/\(Self.projectName(workingDirectory))/\(id).jsonl"
        if Files.exists(expected) { return expected }
        // The CLI shortens the names of long directories.
        return Files.names(in: projects).lazy.map { "\(projects)/\($0)/\(id).jsonl" }.first { Files.exists($0) }
    }

    /// Removes the file and what the CLI keeps beside it.
    ///
    /// - Parameter ownDirectory: The session's own working directory, whose notes go whole; nil for one that stays.
    func remove(ownDirectory: String?) {
        Files.remove(path)
        guard UUIDText.isUUID(id), let configurationDirectory else { return }
        for name in Files.names(in: configurationDirectory) where name != "projects" {
            let kept = "\(configurationDirectory)/\(name)"
            if Files.exists("\(kept)/\(id)") { Files.remove("\(kept)/\(id)") }
        }
        for name in Files.names(in: configurationDirectory + "/todos") where name.hasPrefix(id) {
            Files.remove("\(configurationDirectory)/todos/\(name)")
        }
        let projects = configurationDirectory + "/projects"
        if let ownDirectory { Files.remove("\(projects)/\(Self.projectName(ownDirectory))") }
        for name in Files.names(in: projects) {
            for left in ["\(projects)/\(name)/\(id)", "\(projects)/\(name)/\(id).jsonl"] where Files.exists(left) {
                Files.remove(left)
            }
        }
    }

    /// The CLI's name for what it keeps of a directory.
    static func projectName(_ directory: String) -> String {
        String(directory.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" })
    }

    /// The conversation's messages up to the last whole turn, in the Messages API's form, thinking left out.
    func messages(bytes: Int) throws(APIError) -> [RunRequest.Turn] {
        guard let size = Files.size(path), size >= bytes, bytes > 0 else { throw Self.gone }
        do throws(FileError) {
            return TranscriptReader.turns(try Files.read(path, from: 0, to: min(bytes, Self.readLimitBytes)))
        } catch {
            throw APIError(.internal, "The session can't be read on the server.", cause: "\(error)")
        }
    }

    private static let gone = APIError(
        .sessionGone,
        "What was said in this session is no longer on the server. Delete the session and begin another one.",
        parameter: "sessionId")
}
