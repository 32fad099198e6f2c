/// One stored response of the Responses API.
///
/// The documents are JSON text that nothing here reads.
public struct StoredResponse: Sendable, Equatable {
    /// Where a response stands; the raw values are the API's own.
    public enum State: String, Sendable, CaseIterable {
        /// It waits for a place to run.
        case queued
        /// It runs.
        case inProgress = "in_progress"
        /// It is whole.
        case completed
        /// It ended early: a limit of tokens, say.
        case incomplete
        /// It ended by an error.
        case failed
        /// The caller ended it.
        case cancelled

        /// Nothing changes it any more.
        public var isTerminal: Bool { self != .queued && self != .inProgress }
    }

    /// The public id, `resp_…`.
    public var id: String
    /// The key's name; for every other key the row does not exist.
    public var owner: String
    /// Where it stands.
    public var state: State
    /// The response that this one continues.
    public var previousID: String?
    /// The response object, as JSON.
    public var response: String
    /// The items of this request's input, as a JSON array.
    public var input: String
    /// The whole conversation up to and with this answer, as JSON.
    public var conversation: String
    /// Seconds since 1970.
    public var created: Int
    /// Seconds since 1970; what expiry counts from.
    public var lastUsed: Int
    /// The process that runs it in the background.
    public var runnerPID: Int32?
    /// That process's start time, so that another process with its number is not taken for it.
    public var runnerStartTime: UInt64?
    /// The caller asked for its end.
    public var cancelRequested: Bool

    /// A response as it is to be stored.
    public init(
        id: String, owner: String, state: State, previousID: String? = nil, response: String, input: String,
        conversation: String, created: Int, lastUsed: Int, runnerPID: Int32? = nil, runnerStartTime: UInt64? = nil,
        cancelRequested: Bool = false
    ) {
        self.id = id
        self.owner = owner
        self.state = state
        self.previousID = previousID
        self.response = response
        self.input = input
        self.conversation = conversation
        self.created = created
        self.lastUsed = lastUsed
        self.runnerPID = runnerPID
        self.runnerStartTime = runnerStartTime
        self.cancelRequested = cancelRequested
    }
}
