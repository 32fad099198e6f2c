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

    init(path: String) throws(SessionStoreError) {
        let database = try SessionDatabase(path: path)
        responses = ResponseStore(database: database)
        sessions = SessionStore(database: database)
        runs = RunStore(database: database)
    }
}

/// What the service keeps in STATE_DIR for all responders.
///
/// Opened when first needed: who uses neither sessions nor the Responses API has no database.
final class StateStore: Sendable {
    let settings: Settings
    let environment: ClaudeEnvironment
    let logger: Logger
    private let opened = Mutex<SessionStores?>(nil)

    init(settings: Settings, environment: ClaudeEnvironment, logger: Logger) {
        self.settings = settings
        self.environment = environment
        self.logger = logger
    }

    private var path: String { settings.stateDirectory + "/sessions.db" }

    /// Whether anything was ever kept.
    var exists: Bool { Files.exists(path) }

    /// The stores where they have been opened: nothing is waited for.
    var openedStores: SessionStores? { opened.withLock { $0 } }

    /// The stores, opened by now.
    func stores() throws(SessionStoreError) -> SessionStores {
        let result: Result<SessionStores, SessionStoreError> = opened.withLock { opened in
            if let opened { return .success(opened) }
            do throws(SessionStoreError) {
                try? Files.makeDirectory(settings.stateDirectory)
                let stores = try SessionStores(path: path)
                opened = stores
                return .success(stores)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
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
