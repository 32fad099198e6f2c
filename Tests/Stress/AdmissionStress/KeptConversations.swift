// What a worker does with live conversations: it offers them, ends what others have marked, and looks for them.
//
// Hashes are few, so that workers meet in them. The worker knows how many of each it has offered and not taken back; the table
// must agree, whatever other workers and their deaths do meanwhile.

import Admission
import Glibc
import Synchronization

final class KeptConversations: Sendable {
    private let gate: AdmissionGate
    private let kept = Mutex<[LiveHash: Int]>([:])

    init(_ gate: AdmissionGate) { self.gate = gate }

    func changeForEver(seed: UInt64) {
        var random = Random(state: seed | 1)
        while true {
            let hash = LiveHash(high: 7, low: UInt64(random.below(12)))
            switch random.below(4) {
            case 0, 1: offer(hash)
            case 2: take(hash)
            default: look(hash)
            }
            if random.below(4) == 0 { usleep(UInt32(random.below(300))) }
        }
    }

    private func offer(_ hash: LiveHash) {
        kept.withLock { kept in
            kept[hash, default: 0] += 1
            for marked in gate.publishLive(hash, limit: liveLimit) { withdraw(marked, &kept) }
        }
    }

    private func take(_ hash: LiveHash) {
        kept.withLock { kept in
            let has = kept[hash, default: 0] > 0
            if gate.withdrawLive(hash) != has { fail("live: the table has \(has ? "lost" : "kept") a conversation") }
            if has { kept[hash, default: 0] -= 1 }
        }
    }

    private func look(_ hash: LiveHash) {
        kept.withLock { kept in
            for marked in gate.evictedLive() { withdraw(marked, &kept) }
            let count = kept[hash, default: 0]
            guard let owner = gate.findLive(hash), owner.isSelf, count == 0 else { return }
            fail("live: one's own is found and was never offered")
        }
    }

    private func withdraw(_ hash: LiveHash, _ kept: inout [LiveHash: Int]) {
        guard kept[hash, default: 0] > 0, gate.withdrawLive(hash) else { fail("live: no row of what was marked") }
        kept[hash, default: 0] -= 1
    }
}
