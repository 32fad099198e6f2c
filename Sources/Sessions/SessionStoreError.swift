import Glibc
internal import GRDB

/// Why the store of sessions could not do something; never holds what is stored.
public enum SessionStoreError: Error, Sendable, Equatable {
    /// The system lets the file not be made or opened; with its error number.
    case cannotOpen(path: String, errno: Int32)
    /// SQLite's extended result code and its words.
    case sqlite(path: String, code: Int32, message: String)
    /// A newer version of this program has changed the database.
    case newerSchema(path: String)
    /// A row has a value that this version can't read.
    case unreadable(path: String, column: String)

    /// No space is left on the file system, or none of a quota.
    public var isFull: Bool {
        switch self {
        case .cannotOpen(_, let number): number == ENOSPC || number == EDQUOT
        // The second: the index of the write-ahead log could not grow.
        case .sqlite(_, let code, _): code & 0xFF == 13 || code == 4874
        case .newerSchema, .unreadable: false
        }
    }

    /// The file or its directory can't be written.
    public var isReadOnly: Bool {
        switch self {
        case .cannotOpen(_, let number): number == EROFS || number == EACCES || number == EPERM
        case .sqlite(_, let code, _): code & 0xFF == 8 || code & 0xFF == 3
        case .newerSchema, .unreadable: false
        }
    }

    /// The file is damaged or is no database.
    public var isCorrupt: Bool {
        switch self {
        case .sqlite(_, let code, _): code & 0xFF == 11 || code & 0xFF == 26
        case .unreadable: true
        case .cannotOpen, .newerSchema: false
        }
    }

    /// Another process kept the file locked for longer than a call waits.
    public var isBusy: Bool {
        switch self {
        case .sqlite(_, let code, _): code & 0xFF == 5 || code & 0xFF == 6
        case .cannotOpen, .newerSchema, .unreadable: false
        }
    }

    /// Takes the facts from what GRDB threw, and leaves values behind.
    init(_ error: any Error, path: String) {
        switch error {
        case let error as SessionStoreError: self = error
        case let error as DatabaseError:
            if error.resultCode == .SQLITE_CANTOPEN, let number = Self.whyNotOpened(path) {
                self = .cannotOpen(path: path, errno: number)
            } else {
                self = .sqlite(
                    path: path, code: error.extendedResultCode.rawValue, message: error.message ?? "unknown error")
            }
        case is SessionSchema.Superseded: self = .newerSchema(path: path)
        default: self = .sqlite(path: path, code: 1, message: "\(type(of: error))")
        }
    }

    /// What SQLite does not say: the system's reason, where it is one of rights.
    private static func whyNotOpened(_ path: String) -> Int32? {
        let directory = path.lastIndex(of: "/").map { path[...$0] } ?? "./"
        for (name, rights) in [(String(directory), W_OK | X_OK), (path, R_OK | W_OK)] {
            guard unsafe access(name, rights) == 0 else { return errno }
        }
        return nil
    }
}

extension SessionStoreError: CustomStringConvertible {
    /// What failed, on which file, and what to do next.
    public var description: String {
        switch self {
        case .cannotOpen(let path, let number):
            "can't open \(path): \(unsafe String(cString: strerror(number))). \(advice)"
        case .sqlite(let path, let code, let message):
            "database \(path): \(message) (SQLite \(code)). \(advice)"
        case .newerSchema(let path):
            "database \(path) belongs to a newer version of claude-fcgi. \(advice)"
        case .unreadable(let path, let column):
            "database \(path): a value in column \(column) can't be read. \(advice)"
        }
    }

    private var advice: String {
        if isFull { return "Free space there; what was stored before is still there." }
        if isReadOnly { return "Give the service's user the right to write to the file and its directory." }
        if isBusy { return "Another process holds its lock: find it with `fuser` and end it." }
        switch self {
        case .cannotOpen: return "Check that its directory exists, and that STATE_DIR names it."
        case .newerSchema: return "Update every responder, or move the file away to start with an empty one."
        case .unreadable, .sqlite(_, 11, _), .sqlite(_, 26, _):
            return "Stop the service, move the file and its -wal and -shm away, and start: an empty one is made."
        case .sqlite(_, let code, _) where isCorrupt || code & 0xFF == 10:
            return "Look for disk errors in the kernel's log; if the file is damaged, stop the service, move it and "
                + "its -wal and -shm away, and start: an empty one is made."
        case .sqlite(_, let code, _) where code & 0xFF == 14:
            return "Check that it is a file, and the limit of open files."
        case .sqlite: return "Please report this."
        }
    }
}
