/// One run in the background of the direct API.
///
/// Its documents are JSON text that nothing here reads; its events are not stored here.
public struct StoredRun: Sendable, Equatable {
    /// Where a run stands; the raw values are the API's own.
    public enum State: String, Sendable, CaseIterable {
        /// It waits for a place to run.
        case queued
        /// It runs.
        case running
        /// It is whole.
        case completed
        /// It ended by an error.
        case failed
        /// The caller ended it.
        case cancelled

        /// Nothing changes it any more.
        public var isTerminal: Bool { self != .queued && self != .running }
    }

    /// How a run ended.
    public enum End: Sendable, Equatable {
        /// With the reply, as JSON.
        case completed(result: String)
        /// By an error, as JSON.
        case failed(error: String)
        /// By its caller; the error says so, as JSON.
        case cancelled(error: String)

        /// The state that it is in then.
        public var state: State {
            switch self {
            case .completed: .completed
            case .failed: .failed
            case .cancelled: .cancelled
            }
        }

        /// The reply.
        public var result: String? {
            if case .completed(let result) = self { result } else { nil }
        }

        /// The error.
        public var error: String? {
            switch self {
            case .completed: nil
            case .failed(let error), .cancelled(let error): error
            }
        }
    }

    /// The public id, `run_…`.
    public var id: String
    /// The key's name; for every other key the row does not exist.
    public var owner: String
    /// The session that it begins or continues.
    public var sessionID: String?
    /// Where it stands.
    public var state: State
    /// Seconds since 1970.
    public var created: Int
    /// Seconds since 1970; what expiry counts from.
    public var lastUsed: Int
    /// The process that runs it.
    public var runnerPID: Int32?
    /// That process's start time, so that another process with its number is not taken for it.
    public var runnerStartTime: UInt64?
    /// The caller asked for its end.
    public var cancelRequested: Bool
    /// How far it is, as JSON.
    public var progress: String
    /// The reply of one that completed, as JSON.
    public var result: String?
    /// The error of one that failed, as JSON.
    public var error: String?

    /// A run as it is to be stored.
    public init(
        id: String, owner: String, sessionID: String? = nil, state: State = .queued, created: Int, lastUsed: Int,
        runnerPID: Int32? = nil, runnerStartTime: UInt64? = nil, cancelRequested: Bool = false, progress: String,
        result: String? = nil, error: String? = nil
    ) {
        self.id = id
        self.owner = owner
        self.sessionID = sessionID
        self.state = state
        self.created = created
        self.lastUsed = lastUsed
        self.runnerPID = runnerPID
        self.runnerStartTime = runnerStartTime
        self.cancelRequested = cancelRequested
        self.progress = progress
        self.result = result
        self.error = error
    }
}
