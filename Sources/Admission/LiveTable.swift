// Which responder keeps which conversation's CLI process.
//
// A responder offers a conversation when its process is parked, and withdraws it when a request takes the process or when it
// ends. Whoever gets a request that goes on with one asks here, and hands the request to the owner. The bound holds over all
// responders: whoever would exceed it marks the conversation unused for longest, whoever's it is, and the owner, which looks
// several times a second, ends that process. A marked one is not found any more and is not counted, but keeps its row until
// its owner withdraws it, so that each row is one process.
//
// As in the rest of the segment: a row counts by its state alone, which is written last, and nothing here may trap.

import CLinux
import Glibc

/// What a request must agree with to go on in a live conversation: 128 bits of a cryptographic hash.
public struct LiveHash: Sendable, Hashable {
    /// The first half.
    public var high: UInt64
    /// The second half.
    public var low: UInt64

    /// A hash of two halves.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// The first 16 bytes of a digest; missing ones count as zero.
    public init(digest: some Sequence<UInt8>) {
        var words: (UInt64, UInt64) = (0, 0)
        var count = 0
        for byte in digest {
            if count == 16 { break }
            let shifted = UInt64(byte) << UInt64(56 - count % 8 * 8)
            if count < 8 { words.0 |= shifted } else { words.1 |= shifted }
            count += 1
        }
        self.init(high: words.0, low: words.1)
    }
}

/// The responder that keeps a live conversation.
public struct LiveOwner: Sendable, Equatable {
    /// Its process, by which its own socket is named.
    public var pid: Int32
    /// Whether it is the one that asked.
    public var isSelf: Bool
}

extension AdmissionGate {
    /// The most live conversations that are kept; as many more can be marked and not ended yet.
    public static let liveCapacity = Int(ADMISSION_LIVE) / 2

    /// Offers a conversation whose CLI process this responder keeps; its last use is now.
    ///
    /// - Parameters:
    ///   - hash: Found by ``findLive(_:)``; two processes may have the same.
    ///   - limit: How many are kept over all responders, at most ``liveCapacity``. Those unused for longest are marked
    ///     until this one fits.
    /// - Returns: Conversations of this responder that it must end now: its own among those just marked, which it
    ///   withdraws as it ends them, or `hash` itself, which was not taken in (no room, or this responder is draining).
    public func publishLive(_ hash: LiveHash, limit: Int) -> [LiveHash] {
        segment.withLock { segment in
            // Asked for under the lock: draining removes the rows after it has set this.
            isDraining.load(ordering: .relaxed) ? [hash] : segment.publishLive(hash, limit: limit)
        }
    }

    /// The living responder that keeps this conversation: this one if it does, else the one that used it last.
    ///
    /// Another one that has as many requests as threads is not named: what is handed to it would wait, out of the queue's
    /// sight, while others are free.
    public func findLive(_ hash: LiveHash) -> LiveOwner? { segment.withLock { $0.findLive(hash) } }

    /// Takes back one offer of this responder: its process goes on with a request, or ends.
    ///
    /// A marked one goes first.
    ///
    /// - Returns: False if there is none.
    @discardableResult
    public func withdrawLive(_ hash: LiveHash) -> Bool { segment.withLock { $0.withdrawLive(hash) } }

    /// Conversations of this responder that others have marked: it ends and withdraws them.
    ///
    /// One that is marked twice over, in two processes, is named twice.
    public func evictedLive() -> [LiveHash] { segment.withLock { $0.evictedLive() } }

    /// How many conversations can be gone on with, over all responders.
    public var liveCount: Int { segment.withLock { $0.liveCount() } }

    /// Says how many CLI processes this responder has ready for requests to come, and how much memory of their own they have.
    public func setSpares(_ count: Int, kibibytes: Int) {
        guard segment.owner < UInt32(ADMISSION_OWNERS) else { return }
        unsafe clinux_store(&segment.owners[Int(segment.owner)].spares, UInt32(clamping: count))
        unsafe clinux_store(&segment.owners[Int(segment.owner)].spare_kib, UInt32(clamping: kibibytes))
    }

    /// Says how much memory of their own the processes have that keep this responder's conversations.
    public func setLive(kibibytes: Int) {
        guard segment.owner < UInt32(ADMISSION_OWNERS) else { return }
        unsafe clinux_store(&segment.owners[Int(segment.owner)].live_kib, UInt32(clamping: kibibytes))
    }
}

extension AdmissionSegment {
    /// Rows below this index may be in use.
    ///
    /// Clamped: another process wrote it.
    private var liveHighWater: Int { min(Int(unsafe header.pointee.live_high_water), Self.rows) }

    private static let rows = Int(ADMISSION_LIVE)
    private static let free = UInt32(ADMISSION_LIVE_FREE)
    private static let kept = UInt32(ADMISSION_LIVE_KEPT)
    private static let evicted = UInt32(ADMISSION_LIVE_EVICTED)

    func publishLive(_ hash: LiveHash, limit: Int) -> [LiveHash] {
        guard limit > 0, let row = freeLiveRow() else { return [hash] }
        // First room, then the new one: a death in between leaves too few and never too many.
        var ended: [LiveHash] = []
        var count = liveCount()
        while count >= min(limit, AdmissionGate.liveCapacity), let oldest = oldestLive() {
            unsafe clinux_store(&live[oldest].state, Self.evicted)
            if unsafe live[oldest].owner == owner { ended.append(liveHash(oldest)) }
            count -= 1
        }
        unsafe live[row].hash = (hash.high, hash.low)
        unsafe live[row].kept_since = clinux_monotonic()
        unsafe live[row].owner = owner
        if row >= liveHighWater { unsafe header.pointee.live_high_water = UInt32(row + 1) }
        // The conversation is in the table from here on.
        unsafe clinux_store(&live[row].state, Self.kept)
        return ended
    }

    func findLive(_ hash: LiveHash) -> LiveOwner? {
        var found: Int?
        for row in 0..<liveHighWater where unsafe live[row].state == Self.kept && liveHash(row) == hash {
            if unsafe live[row].owner == owner { return LiveOwner(pid: getpid(), isSelf: true) }
            if let found, unsafe live[row].kept_since <= live[found].kept_since { continue }
            if canTakeRequest(ownerOf: row) { found = row }
        }
        return found.map { unsafe LiveOwner(pid: owners[Int(live[$0].owner)].pid, isSelf: false) }
    }

    func withdrawLive(_ hash: LiveHash) -> Bool {
        var found: Int?
        for row in 0..<liveHighWater
        where unsafe live[row].owner == owner && live[row].state != Self.free && liveHash(row) == hash {
            found = row
            if unsafe live[row].state == Self.evicted { break }
        }
        guard let found else { return false }
        freeLive(found)
        return true
    }

    func evictedLive() -> [LiveHash] {
        (0..<liveHighWater)
            .filter { unsafe live[$0].owner == owner && live[$0].state == Self.evicted }
            .map { liveHash($0) }
    }

    func liveCount() -> Int { (0..<liveHighWater).count { unsafe live[$0].state == Self.kept } }

    func liveCount(ofOwner index: UInt32) -> Int {
        (0..<liveHighWater).count { unsafe live[$0].state == Self.kept && live[$0].owner == index }
    }

    /// Frees the rows of one responder.
    func removeLive(ofOwner index: UInt32) {
        for row in 0..<liveHighWater where unsafe live[row].owner == index && live[row].state != Self.free {
            freeLive(row)
        }
    }

    private func freeLive(_ row: Int) {
        unsafe clinux_store(&live[row].state, Self.free)
        var top = liveHighWater
        while top > 0, unsafe live[top - 1].state == Self.free { top -= 1 }
        unsafe header.pointee.live_high_water = UInt32(top)
    }

    private func freeLiveRow() -> Int? {
        for row in 0..<liveHighWater where unsafe live[row].state == Self.free { return row }
        return liveHighWater < Self.rows ? liveHighWater : nil
    }

    /// The row unused for longest of those that are kept.
    private func oldestLive() -> Int? {
        var oldest: Int?
        for row in 0..<liveHighWater where unsafe live[row].state == Self.kept {
            if let oldest, unsafe live[oldest].kept_since <= live[row].kept_since { continue }
            oldest = row
        }
        return oldest
    }

    private func liveHash(_ row: Int) -> LiveHash { unsafe LiveHash(high: live[row].hash.0, low: live[row].hash.1) }

    /// Whether a row's owner lives and has a thread free; its index is another process's word.
    private func canTakeRequest(ownerOf row: Int) -> Bool {
        let index = unsafe live[row].owner
        guard index < UInt32(ADMISSION_OWNERS), unsafe owners[Int(index)].pid != 0, isAlive(index) else { return false }
        return unsafe entryCount(ofOwner: index) < Int(owners[Int(index)].threads)
    }
}
