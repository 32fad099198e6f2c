// The admission segment: one file on tmpfs, mapped by every responder. This is its only description.
//
//   offset        size   what
//   0             4096   struct admission_header
//   4096          8192   struct admission_metrics: what /metrics shows
//   12288         8192   struct admission_owner  × ADMISSION_OWNERS    one per responder process
//   20480         8192   struct admission_key    × ADMISSION_KEYS      one per client key that has asked
//   28672         192 × ADMISSION_ENTRIES        struct admission_entry: one per request that runs or waits
//   2387968       32 × ADMISSION_LIVE            struct admission_live: one per conversation whose CLI process is kept
//
// Everything is read and written under the mutex, except `state` of an entry, which its waiter reads atomically and sleeps on
// (futex), and the metrics, which are single words that are added to atomically: a death loses none of them, and they never
// go down. Counts are derived by scanning the entries below `high_water`, so any prefix of a critical section leaves the
// table consistent, and recovery after a death inside one is pthread_mutex_consistent and nothing more. Live conversations
// are kept the same way, below `live_high_water`: their `state` is written last when one is added and first when it goes.
//
// An owner lives while it holds the open-file-description lock on byte ADMISSION_LOCK_BASE + its index, which the kernel
// drops at its death. Byte ADMISSION_LOCK_CREATE is held while the file is made or judged.
#ifndef CLAUDE_FCGI_CLINUX_ADMISSION_H
#define CLAUDE_FCGI_CLINUX_ADMISSION_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define ADMISSION_MAGIC 0x31444D4149474643ULL
#define ADMISSION_VERSION 4U
#define ADMISSION_OWNERS 128
#define ADMISSION_KEYS 256
#define ADMISSION_ENTRIES 12288
#define ADMISSION_LIVE 2048   // half of them for those that are kept, half for those whose owners have yet to end them
#define ADMISSION_LOCK_CREATE 0
#define ADMISSION_LOCK_BASE 1000000

enum { ADMISSION_FREE = 0, ADMISSION_WAITING = 1, ADMISSION_RUNNING = 2 };
enum { ADMISSION_LIVE_FREE = 0, ADMISSION_LIVE_KEPT = 1, ADMISSION_LIVE_EVICTED = 2 };

struct admission_header {
    uint64_t magic;           // written last: a file without it is not finished
    uint32_t version;
    uint32_t size;            // of the whole file
    uint32_t concurrency;     // limits: the newest settings win
    uint32_t queue_limit;
    uint32_t high_water;      // entries at and above this index are free
    uint32_t live_high_water; // the same of the live conversations
    uint64_t next_ticket;     // arrival order
    uint64_t next_grant;      // grant order
    uint64_t last_reap;       // CLOCK_MONOTONIC, nanoseconds
    uint64_t mean_run;        // nanoseconds, moving average of finished runs
    pthread_mutex_t mutex;    // robust, process-shared
};

#define METRIC_ROUTES 16
#define METRIC_STATUSES 24
#define METRIC_HISTOGRAMS 3
#define METRIC_BUCKETS 24

/// Words that only grow.
struct admission_metrics {
    uint64_t admitted, refused, timed_out, abandoned, reaped, retries, heartbeats;
    uint64_t input_tokens, output_tokens, cache_read_tokens, cost_microdollars;
    uint64_t reserved[5];
    uint64_t requests[METRIC_ROUTES * METRIC_STATUSES];      // by route and status, as the program numbers them
    uint64_t buckets[METRIC_HISTOGRAMS * METRIC_BUCKETS];    // not cumulative; the last is for what exceeds all bounds
    uint64_t sums[METRIC_HISTOGRAMS];                        // microseconds
};

struct admission_owner {
    int32_t pid;              // 0: free
    uint32_t threads;
    uint64_t started;         // CLOCK_MONOTONIC, nanoseconds
    uint64_t generation;      // tells a new owner of the place from the one that died
    uint64_t requests;        // answered by this process
    uint32_t spares;          // CLI processes that it has ready for requests to come
    uint32_t spare_kib;       // their own memory
    uint32_t live_kib;        // that of the processes that keep a conversation
    uint8_t reserved[20];
};

struct admission_key {
    uint64_t hash;            // 0: free
    uint64_t last_grant;      // value of next_grant when this key last got a place
    uint64_t last_used;       // CLOCK_MONOTONIC, nanoseconds
    uint32_t concurrency;     // limits of this key alone; 0: none
    uint32_t queue_limit;     // the same, plus one, so that 0 means none
};

struct admission_entry {
    uint32_t state;           // futex word: ADMISSION_FREE, _WAITING, _RUNNING
    uint32_t owner;           // index of the responder
    uint32_t key;             // index of the client's key
    int32_t group;            // the run's process group; 0 before it is started
    uint64_t ticket;
    uint64_t enqueued;        // CLOCK_MONOTONIC, nanoseconds
    uint64_t started;         // the same, of the grant
    uint64_t group_started;   // the group leader's start time (proc(5) stat field 22): tells it from a stranger with its number
    uint64_t run_seconds;     // the run's id, PID-SECONDS-COUNT, whose PID is the owner's
    uint64_t session;         // of entries with the same one, other than 0, at most one runs
    uint32_t run_count;
    uint32_t stage;           // what the request's thread does, as the program numbers it
    uint32_t route;           // the same numbers as in the metrics
    char client[36];          // names in UTF-8, cut at a character, padded with zeros
    char model[80];
};

/// A conversation that can go on in the CLI process that had its last turn.
struct admission_live {
    uint64_t hash[2];         // of everything the next request must agree with; the same hash may stand here twice
    uint64_t kept_since;      // CLOCK_MONOTONIC, nanoseconds: its last use
    uint32_t owner;           // index of the responder whose child the process is
    uint32_t state;           // ADMISSION_LIVE_FREE, _KEPT, or _EVICTED: its owner is to end it
};

enum {
    ADMISSION_METRICS_OFFSET = 4096,
    ADMISSION_OWNERS_OFFSET = ADMISSION_METRICS_OFFSET + 8192,
    ADMISSION_KEYS_OFFSET = ADMISSION_OWNERS_OFFSET + ADMISSION_OWNERS * 64,
    ADMISSION_ENTRIES_OFFSET = ADMISSION_KEYS_OFFSET + ADMISSION_KEYS * 32,
    ADMISSION_LIVE_OFFSET = ADMISSION_ENTRIES_OFFSET + ADMISSION_ENTRIES * 192,
    ADMISSION_SIZE = ADMISSION_LIVE_OFFSET + ADMISSION_LIVE * 32,
};

_Static_assert(sizeof(struct admission_header) <= 4096, "header");
_Static_assert(sizeof(struct admission_owner) == 64, "owner");
_Static_assert(sizeof(struct admission_key) == 32, "key");
_Static_assert(sizeof(struct admission_entry) == 192, "entry");
_Static_assert(sizeof(struct admission_live) == 32, "live");
_Static_assert(ADMISSION_LIVE_OFFSET == 2387968, "as the table above says");
_Static_assert(sizeof(struct admission_metrics) <= 8192, "metrics");
_Static_assert(offsetof(struct admission_header, mutex) % 8 == 0, "mutex");

/// 0, or an error number. A mutex whose holder died is made consistent: the table needs no repair.
static inline int clinux_robust_lock(pthread_mutex_t *mutex) {
    int result = pthread_mutex_lock(mutex);
    return result == EOWNERDEAD ? pthread_mutex_consistent(mutex) : result;
}

static inline int clinux_robust_init(pthread_mutex_t *mutex) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    int result = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return result;
}

static inline uint32_t clinux_load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void clinux_add(uint64_t *word, uint64_t value) { __atomic_fetch_add(word, value, __ATOMIC_RELAXED); }
static inline uint64_t clinux_load_word(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void clinux_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

/// Sleeps while *word is `expected`, at most `milliseconds`; returns early at a wake, a signal, or for no reason.
static inline void clinux_futex_wait(uint32_t *word, uint32_t expected, int milliseconds) {
    struct timespec limit = {.tv_sec = milliseconds / 1000, .tv_nsec = (milliseconds % 1000) * 1000000L};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &limit, NULL, 0);
}

static inline void clinux_futex_wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }

/// An exclusive lock of one byte that belongs to the open file description: it dies with the last descriptor of it.
static inline int clinux_ofd_lock(int fd, off_t byte, int waits) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int result;
    do { result = fcntl(fd, waits ? F_OFD_SETLKW : F_OFD_SETLK, &lock); } while (result < 0 && errno == EINTR);
    return result;
}

static inline int clinux_ofd_unlock(int fd, off_t byte) {
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

/// Whether another open file description holds a byte of the range. An error counts as held: nothing is taken in doubt.
static inline int clinux_ofd_is_held(int fd, off_t byte, off_t count) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = count};
    return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

static inline uint64_t clinux_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

/// Whether the path lies on tmpfs.
static inline int clinux_is_tmpfs(const char *path) {
    struct statfs information;
    return statfs(path, &information) == 0 && information.f_type == 0x01021994;
}

/// semctl is variadic, which Swift does not import. Used by the benchmark that compares with a System V semaphore.
static inline int clinux_set_semaphore(int id, int value) {
    union { int val; void *array; } argument = {.val = value};
    return semctl(id, 0, SETVAL, argument);
}

static inline int clinux_remove_semaphore(int id) { return semctl(id, 0, IPC_RMID); }

#endif
