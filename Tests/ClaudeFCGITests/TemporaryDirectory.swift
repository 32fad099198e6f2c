import Foundation

/// A directory that is gone with its owner.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        // /tmp may be a symbolic link, and the tests compare resolved paths.
        path = URL(filePath: "/tmp").resolvingSymlinksInPath().path + "/fcgi-\(UInt64.random(in: .min ... .max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ text: String) throws {
        try text.write(toFile: "\(path)/\(name)", atomically: true, encoding: .utf8)
    }

    /// Makes a directory below and returns its path.
    @discardableResult
    func directory(_ name: String) throws -> String {
        try FileManager.default.createDirectory(atPath: "\(path)/\(name)", withIntermediateDirectories: true)
        return "\(path)/\(name)"
    }

    func link(_ name: String, to target: String) throws {
        try FileManager.default.createSymbolicLink(atPath: "\(path)/\(name)", withDestinationPath: target)
    }
}
