// What happens to the table inside a critical section. Each step leaves it consistent, because counts are derived: a process
// may die between any two lines here.

import CLinux
import Glibc

extension AdmissionSegment {
    /// Entries below this index may be in use.
    ///
    /// Clamped: another process wrote it.
    private var highWater: Int { min(Int(unsafe header.pointee.high_water), Int(ADMISSION_ENTRIES)) }

    func counts() -> AdmissionGate.Counts {
        var counts = AdmissionGate.Counts(running: 0, waiting: 0)
        for index in 0..<highWater {
            switch unsafe entries[index].state {
            case UInt32(ADMISSION_RUNNING): counts.running += 1
            case UInt32(ADMISSION_WAITING): counts.waiting += 1
            default: break
            }
        }
        return counts
    }

    /// Takes an entry: running if a place is free that no waiting entry could have, else waiting if the queue has room.
    ///
    /// - Returns: Its index, or nil.
    func enter(_ request: AdmissionRequest) -> Int? {
        let now = clinux_monotonic()
        let keyIndex = self.keyIndex(request.client.hash, now: now)
        let key = Int(keyIndex)
        unsafe keys[key].concurrency = UInt32(clamping: request.client.concurrency ?? 0)
        unsafe keys[key].queue_limit = request.client.queueLimit.map { UInt32(clamping: $0) &+ 1 } ?? 0
        let counts = counts()
        let own = self.counts(ofKey: keyIndex)
        let ownQueueLimit = request.client.queueLimit ?? Int.max
        // Not one of those that wait, as a rule: `grant()` follows everything that frees a place.
        let runs =
            counts.running < Int(unsafe header.pointee.concurrency) && mayRun(key, running: own.running)
            && !isInUse(session: request.session) && nextWaiting() == nil
        let waits = counts.waiting < Int(unsafe header.pointee.queue_limit) && own.waiting < ownQueueLimit
        guard runs || waits, let index = freeEntry() else { return nil }
        unsafe entries[index].owner = owner
        unsafe entries[index].key = keyIndex
        unsafe entries[index].group = 0
        unsafe entries[index].session = request.session
        unsafe entries[index].ticket = unsafe header.pointee.next_ticket
        unsafe header.pointee.next_ticket &+= 1
        unsafe entries[index].enqueued = now
        unsafe entries[index].stage = RequestStage.waiting.rawValue
        unsafe entries[index].route = request.route
        unsafe copy(request.client.name, to: &entries[index].client)
        unsafe copy(request.model, to: &entries[index].model)
        if index >= highWater { unsafe header.pointee.high_water = UInt32(index + 1) }
        // The entry is in the table from here on.
        if runs {
            markRunning(index, now: now)
        } else {
            unsafe clinux_store(&entries[index].state, UInt32(ADMISSION_WAITING))
        }
        return index
    }

    /// Frees an entry.
    func leave(_ index: Int) {
        if unsafe entries[index].state == UInt32(ADMISSION_RUNNING), unsafe entries[index].group != 0 {
            let run = unsafe clinux_monotonic() &- entries[index].started
            let mean = unsafe header.pointee.mean_run
            // A moving average over about eight runs; an impossible time (an hour and more) is not taken in.
            if run < 7_200_000_000_000 { unsafe header.pointee.mean_run = mean == 0 ? run : (mean &* 7 &+ run) / 8 }
        }
        unsafe clinux_store(&entries[index].state, UInt32(ADMISSION_FREE))
        var top = highWater
        while top > 0, unsafe entries[top - 1].state == UInt32(ADMISSION_FREE) { top -= 1 }
        unsafe header.pointee.high_water = UInt32(top)
    }

    /// How many of one key are where.
    private func counts(ofKey key: UInt32) -> AdmissionGate.Counts {
        var counts = AdmissionGate.Counts(running: 0, waiting: 0)
        for index in 0..<highWater where unsafe entries[index].key == key {
            switch unsafe entries[index].state {
            case UInt32(ADMISSION_RUNNING): counts.running += 1
            case UInt32(ADMISSION_WAITING): counts.waiting += 1
            default: break
            }
        }
        return counts
    }

    /// How many requests of one responder run and wait.
    func entryCount(ofOwner index: UInt32) -> Int {
        (0..<highWater).count { unsafe entries[$0].owner == index && entries[$0].state != UInt32(ADMISSION_FREE) }
    }

    private func mayRun(_ key: Int, running: Int) -> Bool {
        let limit = unsafe keys[key].concurrency
        return limit == 0 || running < Int(limit)
    }

    /// Gives free places to waiting entries.
    ///
    /// - Returns: Entries to wake once the lock is released.
    func grant() -> [Int] {
        var granted: [Int] = []
        var running = counts().running
        while running < Int(unsafe header.pointee.concurrency), let next = nextWaiting() {
            markRunning(next, now: clinux_monotonic())
            granted.append(next)
            running += 1
        }
        return granted
    }

    /// Wakes the waiters of entries; called without the lock.
    func wake(_ indices: [Int]) {
        for index in indices { unsafe clinux_futex_wake(&entries[index].state) }
    }

    /// Whether the entry has a place; called without the lock.
    func isRunning(_ index: Int) -> Bool { unsafe clinux_load(&entries[index].state) == UInt32(ADMISSION_RUNNING) }

    /// Sleeps while the entry waits; called without the lock.
    func sleep(_ index: Int, milliseconds: CInt) {
        unsafe clinux_futex_wait(&entries[index].state, UInt32(ADMISSION_WAITING), milliseconds)
    }

    /// Counts why a request was not admitted.
    func note(_ error: AdmissionError) {
        switch error {
        case .queueFull: unsafe clinux_add(&metrics.pointee.refused, 1)
        case .timedOut: unsafe clinux_add(&metrics.pointee.timed_out, 1)
        case .abandoned: unsafe clinux_add(&metrics.pointee.abandoned, 1)
        case .draining: break
        }
    }

    /// When a refused request should try again: the queue's length times a run's usual time, over the places.
    func retryAfter(assumed: UInt64) -> Duration {
        let mean = unsafe header.pointee.mean_run
        let waiting = counts().waiting
        let places = max(1, Int(unsafe header.pointee.concurrency))
        let seconds = Double(mean == 0 ? assumed : mean) / 1e9 * Double(waiting + 1) / Double(places)
        return .seconds(min(max(seconds.rounded(.up), 1), 600))
    }

    /// Frees the entries, the places and the live conversations of owners that have died.
    func removeDeadOwners() -> [OrphanedRun] {
        var orphans: [OrphanedRun] = []
        for index in 0..<UInt32(ADMISSION_OWNERS) where unsafe owners[Int(index)].pid != 0 && !isAlive(index) {
            let pid = unsafe owners[Int(index)].pid
            for entry in 0..<highWater
            where unsafe entries[entry].owner == index && entries[entry].state != UInt32(ADMISSION_FREE) {
                if unsafe entries[entry].group != 0 {
                    orphans.append(
                        unsafe OrphanedRun(
                            ownerPID: pid, processGroup: entries[entry].group,
                            processStartTime: entries[entry].group_started, runSeconds: entries[entry].run_seconds,
                            runCount: entries[entry].run_count))
                }
                unsafe clinux_add(&metrics.pointee.reaped, 1)
                leave(entry)
            }
            removeLive(ofOwner: index)
            // Last: until here another process that looks finds the owner dead again and goes on.
            unsafe owners[Int(index)].pid = 0
        }
        return orphans
    }

    private func markRunning(_ index: Int, now: UInt64) {
        unsafe entries[index].started = now
        let key = unsafe Int(entries[index].key)
        if key < Int(ADMISSION_KEYS) { unsafe keys[key].last_grant = unsafe header.pointee.next_grant }
        unsafe header.pointee.next_grant &+= 1
        unsafe clinux_add(&metrics.pointee.admitted, 1)
        unsafe clinux_store(&entries[index].state, UInt32(ADMISSION_RUNNING))
    }

    /// Whether a request of the session runs, or waits and comes first.
    func isInUse(session: UInt64) -> Bool {
        guard session != 0 else { return false }
        for index in 0..<highWater
        where unsafe entries[index].session == session && entries[index].state != UInt32(ADMISSION_FREE) {
            return true
        }
        return false
    }

    /// The waiting entry whose turn it is: of the key that has gone longest without a grant, the oldest.
    ///
    /// One whose session has a run is passed over; within a session the oldest comes first, because it is one key's.
    private func nextWaiting() -> Int? {
        var isAnyWaiting = false
        var runningOfKey = [Int](repeating: 0, count: Int(ADMISSION_KEYS))
        var busySessions: [UInt64] = []
        for index in 0..<highWater {
            switch unsafe entries[index].state {
            case UInt32(ADMISSION_RUNNING):
                runningOfKey[keyIndex(of: index)] += 1
                if unsafe entries[index].session != 0 { busySessions.append(unsafe entries[index].session) }
            case UInt32(ADMISSION_WAITING): isAnyWaiting = true
            default: break
            }
        }
        guard isAnyWaiting else { return nil }
        var best: Int?
        var bestGrant: UInt64 = 0
        for index in 0..<highWater where unsafe entries[index].state == UInt32(ADMISSION_WAITING) {
            let key = keyIndex(of: index)
            guard mayRun(key, running: runningOfKey[key]),
                busySessions.isEmpty || !busySessions.contains(unsafe entries[index].session)
            else { continue }
            let grant = unsafe keys[key].last_grant
            if let current = best {
                let isEarlier =
                    grant != bestGrant
                    ? grant < bestGrant : unsafe entries[index].ticket < entries[current].ticket
                if !isEarlier { continue }
            }
            best = index
            bestGrant = grant
        }
        return best
    }

    /// The row of an entry's key; clamped, because another process wrote it.
    private func keyIndex(of index: Int) -> Int {
        unsafe Int(min(entries[index].key, UInt32(ADMISSION_KEYS - 1)))
    }

    /// How many sessions have a run now.
    func busySessionCount() -> Int {
        var count = 0
        for index in 0..<highWater
        where unsafe entries[index].state == UInt32(ADMISSION_RUNNING) && entries[index].session != 0 {
            count += 1
        }
        return count
    }

    private func freeEntry() -> Int? {
        for index in 0..<highWater where unsafe entries[index].state == UInt32(ADMISSION_FREE) { return index }
        return highWater < Int(ADMISSION_ENTRIES) ? highWater : nil
    }

    /// The key's row; the one unused for longest is given up when all are taken.
    private func keyIndex(_ hash: UInt64, now: UInt64) -> UInt32 {
        let wanted = hash == 0 ? 1 : hash
        var oldest = 0
        for index in 0..<Int(ADMISSION_KEYS) {
            let found = unsafe keys[index].hash
            if found == wanted || found == 0 {
                unsafe keys[index].hash = wanted
                unsafe keys[index].last_used = now
                return UInt32(index)
            }
            if unsafe keys[index].last_used < keys[oldest].last_used { oldest = index }
        }
        unsafe keys[oldest].last_grant = 0
        unsafe keys[oldest].hash = wanted
        unsafe keys[oldest].last_used = now
        return UInt32(oldest)
    }
}

/// Copies text into a fixed field: cut at a character, padded with zeros.
private func copy<Field>(_ text: String, to field: inout Field) {
    unsafe withUnsafeMutableBytes(of: &field) { bytes in
        var end = 0
        for character in text {
            let utf8 = String(character).utf8
            if end + utf8.count >= bytes.count { break }
            for byte in utf8 {
                unsafe bytes[end] = byte
                end += 1
            }
        }
        for index in end..<bytes.count { unsafe bytes[index] = 0 }
    }
}
