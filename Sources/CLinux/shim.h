// System calls that Swift's Glibc module hides or that are variadic. Header-only: no compiled C target is needed.
// Every function returns what the kernel returns; a failure is -1 with errno set, unless its comment says otherwise.
#ifndef CLAUDE_FCGI_CLINUX_SHIM_H
#define CLAUDE_FCGI_CLINUX_SHIM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "admission.h"

static inline int clinux_release_text_of(struct dl_phdr_info *object, size_t size, void *unused) {
    (void)size, (void)unused;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        // Nothing is lost: such pages are never written.
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X) || (part->p_flags & PF_W)) continue;
        uintptr_t begin = (object->dlpi_addr + part->p_vaddr + page - 1) & ~(page - 1);
        uintptr_t end = (object->dlpi_addr + part->p_vaddr + part->p_filesz) & ~(page - 1);
        if (end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

/// Takes the program's text out of memory, most of which only its start needed; what is used again comes back from the page
/// cache.
static inline void clinux_release_text(void) { dl_iterate_phdr(clinux_release_text_of, NULL); }

/// Has free(3) give the end of each arena back as soon as it is larger than 128 KiB. Else that bound rises to twice the largest
/// block that was ever freed, up to 64 MiB an arena, and malloc_trim(3) touches the end of the first arena only.
static inline void clinux_bound_heap(void) { mallopt(M_TRIM_THRESHOLD, 128 << 10); }

/// Gives free memory of malloc's back to the kernel, whole pages within each arena.
static inline void clinux_release_heap(void) { malloc_trim(0); }

static inline int clinux_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

static inline int clinux_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

static inline int clinux_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC); }

/// An epoll set that wakes one waiter a connection (EPOLLEXCLUSIVE) and every waiter when `stop` becomes readable. There may
/// be a second listener; a negative one is left out.
static inline int clinux_epoll_listeners(int listener, int second, int stop) {
    int set = epoll_create1(EPOLL_CLOEXEC);
    if (set < 0) return -1;
    struct epoll_event first = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data = {.fd = listener}};
    struct epoll_event other = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data = {.fd = second}};
    struct epoll_event ending = {.events = EPOLLIN, .data = {.fd = stop}};
    if (epoll_ctl(set, EPOLL_CTL_ADD, listener, &first) < 0 || epoll_ctl(set, EPOLL_CTL_ADD, stop, &ending) < 0
        || (second >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, second, &other) < 0)) {
        int saved = errno;
        close(set);
        errno = saved;
        return -1;
    }
    return set;
}

/// Waits for one event of `set`; returns the ready descriptor, or -1 with errno (EINTR included).
static inline int clinux_epoll_wait_one(int set) {
    struct epoll_event event;
    int count = epoll_wait(set, &event, 1, -1);
    return count == 1 ? event.data.fd : -1;
}

static inline int clinux_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

/// Other processes of the same user can't read this one's memory and environment any more; nor is a core dumped.
static inline int clinux_make_private(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

static inline int clinux_set_thread_name(const char *name) { return pthread_setname_np(pthread_self(), name); }

static inline int clinux_set_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static inline int clinux_set_cloexec(int fd) { return fcntl(fd, F_SETFD, FD_CLOEXEC); }

static inline int clinux_has_exited(int status) { return WIFEXITED(status); }
static inline int clinux_exit_code(int status) { return WEXITSTATUS(status); }
static inline int clinux_end_signal(int status) { return WTERMSIG(status); }

// For tests that end a process at a chosen instruction; ptrace is variadic.
static inline long clinux_trace_me(void) { return ptrace(PTRACE_TRACEME, 0, NULL, NULL); }
static inline long clinux_trace_step(pid_t pid) { return ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL); }
static inline int clinux_has_stopped(int status) { return WIFSTOPPED(status); }

/// What `clinux_spawn` starts. It stands in `directory_descriptor`, or where that is negative in `directory`; the three other
/// descriptors become 0, 1 and 2.
struct clinux_spawn_request {
    const char *path;
    char *const *argv;
    char *const *envp;
    const char *directory;
    int directory_descriptor;
    int standard_input, standard_output, standard_error;
};

/// Starts a program in a process group of its own, with empty signal mask, default signal actions, descriptors 0 to 2 and
/// no others, and SIGKILL sent to it when the calling *thread* ends. Returns the pid, or minus an errno with `*step` naming
/// what failed ('d' directory, 'x' exec, 'p' parent gone, 'f' vfork).
///
/// vfork and not posix_spawn, because posix_spawn can't set PR_SET_PDEATHSIG, without which a CLI outlives a responder that
/// was killed. Between vfork and exec only async-signal-safe calls run, all signals are blocked, and the memory shared with
/// the parent is written in two variables only.
__attribute__((noinline)) static inline pid_t clinux_spawn(const struct clinux_spawn_request *request, char *step) {
    volatile int failure = 0;
    volatile char failed_step = 0;
    sigset_t all, previous;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    pid_t parent = getpid();
    pid_t pid = vfork();
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        if (getppid() != parent) { failed_step = 'p'; failure = ESRCH; _exit(127); }
        struct sigaction standard = {.sa_handler = SIG_DFL};
        for (int number = 1; number < 65; number++) sigaction(number, &standard, NULL);
        // The three sources are above 2 (the caller sees to it), so no dup2 overwrites a later source.
        if (dup2(request->standard_input, 0) < 0 || dup2(request->standard_output, 1) < 0
            || dup2(request->standard_error, 2) < 0) { failed_step = 'x'; failure = errno; _exit(127); }
        if ((request->directory_descriptor >= 0 ? fchdir(request->directory_descriptor)
                                                : chdir(request->directory)) < 0) {
            failed_step = 'd';
            failure = errno;
            _exit(127);
        }
        syscall(SYS_close_range, 3U, ~0U, 0U);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execve(request->path, request->argv, request->envp);
        failed_step = 'x';
        failure = errno;
        _exit(127);
    }
    int vfork_error = errno;
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    if (pid < 0) { *step = 'f'; return -vfork_error; }
    if (failure) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
        *step = failed_step;
        return -failure;
    }
    return pid;
}

#endif
