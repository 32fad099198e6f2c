import CLinux
import Glibc

/// Why the admission segment can't be used.
public enum AdmissionSegmentError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A running responder uses a segment of another layout.
    case otherLayoutInUse(path: String)
    /// More responder processes than the segment has room for.
    case tooManyOwners(path: String, limit: Int)
    /// A system call failed.
    case systemCall(name: String, path: String, errno: Int32)

    /// What happened and what to do.
    public var description: String {
        switch self {
        case .otherLayoutInUse(let path):
            "the admission segment \(path) is of another version and in use; stop the responders that run, then "
                + "start these"
        case .tooManyOwners(let path, let limit):
            "the admission segment \(path) has \(limit) responders already; stop some, or lower RESPONDERS"
        case .systemCall(let name, let path, let number):
            "\(name) failed for the admission segment \(path): \(unsafe String(cString: strerror(number)))"
        }
    }
}

/// The mapped segment and this process's place in it; layout in `CLinux/admission.h`.
///
/// `@unchecked Sendable`: the pointers are set once; what they lead to is touched under the segment's mutex only, except the
/// entries' futex words, which are atomic.
@safe
final class AdmissionSegment: @unchecked Sendable {
    let path: String
    let header: UnsafeMutablePointer<admission_header>
    let metrics: UnsafeMutablePointer<admission_metrics>
    let owners: UnsafeMutablePointer<admission_owner>
    let keys: UnsafeMutablePointer<admission_key>
    let entries: UnsafeMutablePointer<admission_entry>
    let live: UnsafeMutablePointer<admission_live>
    /// This process's index among the owners; none for an observer.
    let owner: UInt32

    /// What an observer has for an index.
    private static let noOwner = UInt32.max
    private let descriptor: CInt
    private let base: UnsafeMutableRawPointer

    /// Maps the segment, made first where there is none, and takes an owner's place.
    ///
    /// - Parameter threads: How many request threads the process has; nil for an observer, which takes no place.
    init(path: String, threads: Int?) throws(AdmissionSegmentError) {
        self.path = path
        let descriptor = try Self.openAndPrepare(path)
        guard
            let base = unsafe mmap(
                nil, Int(ADMISSION_SIZE), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), unsafe base != MAP_FAILED
        else {
            let number = errno
            close(descriptor)
            throw .systemCall(name: "mmap", path: path, errno: number)
        }
        self.descriptor = descriptor
        unsafe self.base = unsafe base
        unsafe header = unsafe base.assumingMemoryBound(to: admission_header.self)
        unsafe metrics = unsafe (base + Int(ADMISSION_METRICS_OFFSET)).assumingMemoryBound(to: admission_metrics.self)
        unsafe owners = unsafe (base + Int(ADMISSION_OWNERS_OFFSET)).assumingMemoryBound(to: admission_owner.self)
        unsafe keys = unsafe (base + Int(ADMISSION_KEYS_OFFSET)).assumingMemoryBound(to: admission_key.self)
        unsafe entries = unsafe (base + Int(ADMISSION_ENTRIES_OFFSET)).assumingMemoryBound(to: admission_entry.self)
        unsafe live = unsafe (base + Int(ADMISSION_LIVE_OFFSET)).assumingMemoryBound(to: admission_live.self)
        guard let threads else {
            owner = Self.noOwner
            return
        }
        guard let owner = unsafe Self.takeOwner(descriptor, header, owners, threads: threads) else {
            unsafe munmap(base, Int(ADMISSION_SIZE))
            close(descriptor)
            throw .tooManyOwners(path: path, limit: Int(ADMISSION_OWNERS))
        }
        self.owner = owner
    }

    deinit {
        unsafe munmap(base, Int(ADMISSION_SIZE))
        close(descriptor)
    }

    /// Runs a critical section.
    ///
    /// It must not block, trap or call out.
    func withLock<Result>(_ body: (borrowing AdmissionSegment) -> Result) -> Result {
        let result = unsafe clinux_robust_lock(&header.pointee.mutex)
        precondition(result == 0, "the admission mutex is broken: \(result)")
        defer { unsafe pthread_mutex_unlock(&header.pointee.mutex) }
        return body(self)
    }

    /// Whether an owner's process lives.
    func isAlive(_ index: UInt32) -> Bool {
        index == owner || clinux_ofd_is_held(descriptor, off_t(ADMISSION_LOCK_BASE) + off_t(index), 1) != 0
    }

    private static func takeOwner(
        _ descriptor: CInt, _ header: UnsafeMutablePointer<admission_header>,
        _ owners: UnsafeMutablePointer<admission_owner>, threads: Int
    ) -> UInt32? {
        for index in 0..<UInt32(ADMISSION_OWNERS) {
            // The lock is the claim. Its previous holder's entries are reaped by comparing generations before it is used.
            guard clinux_ofd_lock(descriptor, off_t(ADMISSION_LOCK_BASE) + off_t(index), 0) == 0 else { continue }
            guard unsafe clinux_robust_lock(&header.pointee.mutex) == 0 else { return nil }
            let isFree = unsafe owners[Int(index)].pid == 0
            if isFree {
                unsafe owners[Int(index)].pid = getpid()
                unsafe owners[Int(index)].threads = UInt32(clamping: threads)
                unsafe owners[Int(index)].started = clinux_monotonic()
                unsafe owners[Int(index)].generation &+= 1
                unsafe owners[Int(index)].requests = 0
                unsafe owners[Int(index)].spares = 0
                unsafe owners[Int(index)].spare_kib = 0
                unsafe owners[Int(index)].live_kib = 0
            }
            unsafe pthread_mutex_unlock(&header.pointee.mutex)
            if isFree { return index }
            // A dead owner that nobody has reaped yet: its entries still bear this index. Leave it to the reaper.
            clinux_ofd_unlock(descriptor, off_t(ADMISSION_LOCK_BASE) + off_t(index))
        }
        return nil
    }

    /// Opens the file; makes it, or replaces one of another layout, under the creation lock.
    private static func openAndPrepare(_ path: String) throws(AdmissionSegmentError) -> CInt {
        while true {
            let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard descriptor >= 0 else { throw .systemCall(name: "open", path: path, errno: errno) }
            guard clinux_ofd_lock(descriptor, off_t(ADMISSION_LOCK_CREATE), 1) == 0 else {
                let number = errno
                close(descriptor)
                throw .systemCall(name: "lock", path: path, errno: number)
            }
            // While we waited for the lock the file may have been replaced: then it is not the one at the path.
            guard isSameFile(descriptor, path) else {
                close(descriptor)
                continue
            }
            switch judge(descriptor) {
            case .usable:
                clinux_ofd_unlock(descriptor, off_t(ADMISSION_LOCK_CREATE))
                return descriptor
            case .empty:
                if let number = initialize(descriptor) {
                    unsafe unlink(path)
                    close(descriptor)
                    throw .systemCall(name: "ftruncate", path: path, errno: number)
                }
                clinux_ofd_unlock(descriptor, off_t(ADMISSION_LOCK_CREATE))
                return descriptor
            case .foreign:
                if clinux_ofd_is_held(descriptor, off_t(ADMISSION_LOCK_BASE), off_t(ADMISSION_OWNERS)) != 0 {
                    close(descriptor)
                    throw .otherLayoutInUse(path: path)
                }
                // A new file, not the old one cut short: a process that still maps the old one must not get SIGBUS.
                unsafe unlink(path)
                close(descriptor)
            }
        }
    }

    private enum Judgement { case usable, empty, foreign }

    private static func judge(_ descriptor: CInt) -> Judgement {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { return .foreign }
        if status.st_size == 0 { return .empty }
        guard status.st_size == ADMISSION_SIZE else { return .foreign }
        var start = [UInt64](repeating: 0, count: 2)
        guard unsafe pread(descriptor, &start, 16, 0) == 16, start[0] == ADMISSION_MAGIC else { return .foreign }
        let version = UInt32(truncatingIfNeeded: start[1])
        let size = UInt32(truncatingIfNeeded: start[1] >> 32)
        return version == ADMISSION_VERSION && size == UInt32(ADMISSION_SIZE) ? .usable : .foreign
    }

    /// - Returns: An error number, or nil.
    private static func initialize(_ descriptor: CInt) -> Int32? {
        guard ftruncate(descriptor, off_t(ADMISSION_SIZE)) == 0 else { return errno }
        // Allocated now: a full tmpfs shows here as an error, later it would be SIGBUS.
        let allocated = posix_fallocate(descriptor, 0, off_t(ADMISSION_SIZE))
        if allocated != 0 { return allocated }
        guard let base = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            unsafe base != MAP_FAILED
        else { return errno }
        defer { unsafe munmap(base, 4096) }
        let header = unsafe base.assumingMemoryBound(to: admission_header.self)
        unsafe clinux_robust_init(&header.pointee.mutex)
        unsafe header.pointee.version = ADMISSION_VERSION
        unsafe header.pointee.size = UInt32(ADMISSION_SIZE)
        unsafe header.pointee.next_ticket = 1
        unsafe header.pointee.next_grant = 1
        unsafe header.pointee.magic = ADMISSION_MAGIC
        return nil
    }

    private static func isSameFile(_ descriptor: CInt, _ path: String) -> Bool {
        var ours = stat()
        var theirs = stat()
        return unsafe fstat(descriptor, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_ino == theirs.st_ino
            && ours.st_dev == theirs.st_dev
    }
}
