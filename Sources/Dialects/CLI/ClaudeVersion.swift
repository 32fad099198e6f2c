/// A version of the CLI, such as 2.1.330.
public struct ClaudeVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// The first that takes all that a caller may ask for over its standard input without leaving a trace of it in the
    /// conversation: 2.1.250 tells the model of the choice of a model as if the user had typed a command. (`@path` in a
    /// caller's text reads no files from 2.1.248 on.)
    public static let minimum = ClaudeVersion(major: 2, minor: 1, patch: 251)

    private let major: Int
    private let minor: Int
    private let patch: Int

    private init(major: Int, minor: Int, patch: Int) {
        self.major = major
        self.minor = minor
        self.patch = patch
    }

    /// From `2.1.330`, or from what `claude --version` prints: `2.1.330 (Claude Code)`.
    public init?(_ text: String) {
        let word = text.prefix { $0 == "." || ("0"..."9").contains($0) }
        let parts = word.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 3, let major = parts[0], let minor = parts[1], let patch = parts[2] else { return nil }
        self.init(major: major, minor: minor, patch: patch)
    }

    /// `2.1.330`.
    public var description: String { "\(major).\(minor).\(patch)" }

    /// By major, minor, patch.
    public static func < (left: ClaudeVersion, right: ClaudeVersion) -> Bool {
        (left.major, left.minor, left.patch) < (right.major, right.minor, right.patch)
    }
}
