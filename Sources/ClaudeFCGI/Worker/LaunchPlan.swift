import Dialects

/// What one CLI process is started as.
struct LaunchPlan: Sendable {
    /// Where it stands.
    enum Directory: Sendable, Equatable {
        /// In the empty one of all chats.
        case chat
        /// In one that is made for the run and goes with it.
        case fresh
        /// In one that the caller or the operator named, at or below one of the roots.
        case named(String, roots: [String])
        /// In one that a session keeps; made where it is missing.
        case own(String)
    }

    /// What becomes of the CLI's own record of the conversation.
    enum Record: Sendable, Equatable {
        /// None is made.
        case none
        /// A new one by this id, a UUID.
        case new(id: String)
        /// The one in this file is gone on with.
        case resumed(path: String)
        /// A new one by this id that begins as the one in this file.
        case forked(path: String, id: String)
    }

    /// What the conversation is told.
    var request: RunRequest
    var directory: Directory
    /// Where directories that the caller names must lie.
    let roots: [String]
    var record = Record.none
    /// The run's id; a new one for nil.
    var id: RunID?
    /// How often the CLI may ask its upstream again by itself.
    var retries = 0
    /// Whether its runtime gets options that have been tried with this CLI's file.
    var isTuned = false

    /// For a request that has no part in a stored conversation.
    ///
    /// - Parameters:
    ///   - roots: Where a directory that it names must lie.
    ///   - chatDirectory: Where chats with tools of the operator's stand; nil for a directory of the run's own.
    init(_ request: RunRequest, roots: [String], chatDirectory: String? = nil) {
        self.request = request
        self.roots = roots
        switch request.profile {
        case .chat where request.hostTools.isEmpty: directory = .chat
        case .chat: directory = chatDirectory.map { .named($0, roots: [$0]) } ?? .fresh
        case .agent(let agent):
            directory = agent.workingDirectory.map { .named($0, roots: roots) } ?? .fresh
        }
    }
}
