import Dialects
import Glibc
import Logging
import Sessions
import Synchronization

/// The stores of one database.
struct SessionStores: Sendable {
    let responses: ResponseStore
    let sessions: SessionStore
    let runs: RunStore

    /// Opens the file.
    ///
    /// - Parameter openingPatience: How long is waited for another process meanwhile; nil for as long as later.
    init(path: String, openingPatience: Duration? = nil) throws(SessionStoreError) {
        let database = try SessionDatabase(path: path, openingPatience: openingPatience)
        responses = ResponseStore(database: database)
        sessions = SessionStore(database: database)
        runs = RunStore(database: database)
    }
}

/// What the service keeps in STATE_DIR for all responders.
///
/// Opened when first needed: who uses neither sessions nor the Responses API has no database.
final class StateStore: Sendable {
    /// How long whoever wants no more than a look waits for the file.
    private static let lookPatience = Duration.milliseconds(100)

    /// Writes the end of something that went on in the background.
    typealias End = @Sendable (SessionStores) throws(SessionStoreError) -> Void

    let settings: Settings
    let environment: ClaudeEnvironment
    let logger: Logger
    private let opened = Mutex<SessionStores?>(nil)
    /// What could not be written; as many as ran then at most, since nothing begins without its row.
    private let postponed = Mutex<[End]>([])
    /// Held while the file is opened, which may have to wait for another process.
    private let opening = Mutex<Void>(())

    init(settings: Settings, environment: ClaudeEnvironment, logger: Logger) {
        self.settings = settings
        self.environment = environment
        self.logger = logger
    }

    private var path: String { settings.stateDirectory + "/sessions.db" }

    /// Whether anything was ever kept.
    var exists: Bool { Files.exists(path) }

    private var openedStores: SessionStores? { opened.withLock { $0 } }

    /// The stores where they are open, or there is a file that can be opened at once.
    var storesAtOnce: SessionStores? {
        if let openedStores { return openedStores }
        guard exists else { return nil }
        let deadline = ContinuousClock.now + Self.lookPatience
        repeat {
            if let result = opening.withLockIfAvailable({ _ in open(patience: deadline - .now) }) {
                return try? result.get()
            }
            // Another thread opens it.
            usleep(1000)
            if let openedStores { return openedStores }
        } while ContinuousClock.now < deadline
        return nil
    }

    /// The stores, opened by now.
    func stores() throws(SessionStoreError) -> SessionStores {
        if let openedStores { return openedStores }
        return try opening.withLock { _ in open(patience: nil) }.get()
    }

    /// Opens the file, unless that has been done.
    private func open(patience: Duration?) -> Result<SessionStores, SessionStoreError> {
        if let openedStores { return .success(openedStores) }
        do throws(SessionStoreError) {
            try? Files.makeDirectory(settings.stateDirectory)
            let stores = try SessionStores(path: path, openingPatience: patience)
            opened.withLock { $0 = stores }
            return .success(stores)
        } catch {
            return .failure(error)
        }
    }

    /// Does something with the stores; one that fails is a fault of the service's.
    ///
    /// - Parameters:
    ///   - what: What can't be reached then, for the caller: `Sessions`.
    ///   - advice: What the caller can do instead.
    func use<Value>(
        _ what: String, advice: String, _ body: (SessionStores) throws(SessionStoreError) -> Value
    ) throws(APIError) -> Value {
        do throws(SessionStoreError) {
            return try body(try stores())
        } catch {
            throw APIError(
                error.isBusy ? .unavailable : .internal,
                "\(what) can't be reached on the server. \(advice)", retryAfterSeconds: error.isBusy ? 2 : nil,
                cause: "\(error)")
        }
    }

    /// Writes how something ended; where that fails, it is tried again until it is done or this process ends.
    ///
    /// - Parameter failure: What the log says then.
    func writeEnd(_ failure: Logger.Message, _ end: @escaping End) {
        do throws(SessionStoreError) {
            try end(try stores())
        } catch {
            logger.warning(failure, metadata: [LogKey.errorCause: "\(error)"])
            postponed.withLock { $0.append(end) }
        }
    }

    /// Writes the ends that could not be written before; to be called every so often.
    @available(*, noasync, message: "blocks")
    func writePostponed() {
        // Taken out first: the end of the responder does this too.
        while let end = postponed.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
            do throws(SessionStoreError) {
                try end(try stores())
            } catch {
                // Another is tried first the next time: what is wrong may be with this one alone.
                return postponed.withLock { $0.append(end) }
            }
        }
    }

    /// Logs a failure that the caller does not hear of.
    func warn(_ message: Logger.Message, _ error: APIError) {
        logger.warning(message, metadata: [LogKey.errorCause: "\(error.cause ?? error.message)"])
    }

    /// JSON as it is stored.
    static func text(_ json: JSONValue) -> String { String(decoding: JSONWriter.bytes(json), as: UTF8.self) }

    /// Stored JSON.
    static func json(_ text: String) throws(APIError) -> JSONValue {
        do throws(JSONError) {
            return try JSONParser.parse(Array(text.utf8))
        } catch {
            throw APIError(.internal, "What is stored can't be read. Delete it.", cause: error.reason)
        }
    }
}
