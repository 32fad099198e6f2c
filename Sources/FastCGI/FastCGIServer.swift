// The accept loop.
//
// libfcgi's own accept has no stop that works (FCGX_ShutdownPending can spin on a stale descriptor), leaks descriptors into
// children and waits two seconds for a silent peer. So each request thread accepts by itself: it sleeps in an epoll set of
// its own that holds the listener with EPOLLEXCLUSIVE (one connection wakes one thread, over all processes that share the
// socket) and a stop eventfd that is never read (it wakes every thread). The accepted descriptor is handed to libfcgi in
// `ipcFd`, where FCGX_Accept_r skips its accept and parses that connection.
//
// A server may have a second listener that is its own, for requests that are meant for this process. What waits in the shared
// backlog when it stops is another process's; what waits in its own is nobody else's. So stopping removes the own socket's file
// and shuts it down, which lets no connection in any more, in one step with the kernel's queue, and keeps those that are in it;
// then the threads answer these before they end.

import CFastCGI
import CLinux
import Glibc
import Synchronization

/// A system call that failed while the server was set up.
public struct FastCGIServerError: Error, Sendable, CustomStringConvertible {
    /// The call's name.
    public let call: String
    /// Its error number.
    public let number: Int32
    /// The call and the system's words for the error.
    public var description: String { "\(call) failed: \(unsafe String(cString: strerror(number)))" }
}

/// Accepts FastCGI connections on a fixed number of threads and calls a handler for each request.
public final class FastCGIServer: Sendable {
    /// Answers one request on the calling thread.
    public typealias Handler = @Sendable (_ request: inout FastCGIRequest) -> Void

    /// A stack for handlers; only touched pages cost memory.
    private static let stackBytes = 1 << 20

    private let listener: CInt
    private let own: ListeningSocket?
    private let threads: Int
    private let peerTimeout: Duration
    private let handler: Handler
    private let stopEvent: CInt
    private let isStopped = Atomic<Bool>(false)

    /// A server that does not accept yet.
    ///
    /// - Parameters:
    ///   - listener: A listening Unix socket; non-blocking, since several processes may wake for one connection.
    ///   - own: A second socket, accepted from by this process alone; the server removes its file when it stops, and its
    ///     caller closes it.
    ///   - threads: How many requests run at once.
    ///   - peerTimeout: How long nginx may leave a read or a write hanging; libfcgi itself waits for ever.
    public init(
        listener: CInt, own: ListeningSocket? = nil, threads: Int, peerTimeout: Duration = .seconds(30),
        handler: @escaping Handler
    ) throws(FastCGIServerError) {
        self.listener = listener
        self.own = own
        self.threads = threads
        self.peerTimeout = peerTimeout
        self.handler = handler
        // libfcgi reads this once, in FCGX_Init: without it closing a connection polls up to two seconds for the peer.
        unsafe setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1)
        guard FCGX_Init() == 0 else { throw FastCGIServerError(call: "FCGX_Init", number: errno) }
        // FCGX_Init puts handlers of its own on SIGPIPE, SIGUSR1 and SIGTERM, without SA_RESTART: one that runs on a
        // request thread would abort that request. Writes to a closed peer report EPIPE instead.
        signal(SIGPIPE, SIG_IGN)
        signal(SIGUSR1, SIG_IGN)
        stopEvent = clinux_eventfd()
        guard stopEvent >= 0 else { throw FastCGIServerError(call: "eventfd", number: errno) }
    }

    deinit { close(stopEvent) }

    /// Stops accepting; requests under way go on, and those that wait in the own socket's backlog are answered.
    ///
    /// Safe from any thread, more than once.
    public func stop() {
        if let own {
            own.unlinkIfBound()
            shutdown(own.descriptor, CInt(SHUT_RD))
        }
        // After that: a thread that sees this empties the own backlog once and ends.
        isStopped.store(true, ordering: .sequentiallyConsistent)
        var one: UInt64 = 1
        _ = unsafe Glibc.write(stopEvent, &one, 8)
    }

    /// Accepts and answers until ``stop()``, then returns when the last request has ended.
    @available(*, noasync, message: "blocks for the life of the server")
    public func run() throws(FastCGIServerError) {
        var started: [pthread_t] = []
        var failure: FastCGIServerError?
        for number in 0..<threads {
            do throws(FastCGIServerError) {
                started.append(try startThread(number))
            } catch {
                failure = error
                stop()
                break
            }
        }
        for thread in started { pthread_join(thread, nil) }
        if let failure { throw failure }
    }

    private func startThread(_ number: Int) throws(FastCGIServerError) -> pthread_t {
        var attributes = pthread_attr_t()
        unsafe pthread_attr_init(&attributes)
        defer { unsafe pthread_attr_destroy(&attributes) }
        unsafe pthread_attr_setstacksize(&attributes, Self.stackBytes)
        let box = unsafe Unmanaged.passRetained(ThreadStart(server: self, number: number))
        var thread = pthread_t()
        let result = unsafe pthread_create(
            &thread, &attributes,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue()
                unsafe clinux_set_thread_name("request-\(start.number)")
                start.server.serve()
                return nil
            }, box.toOpaque())
        guard result == 0 else {
            unsafe box.release()
            throw FastCGIServerError(call: "pthread_create", number: result)
        }
        return thread
    }

    private final class ThreadStart: Sendable {
        let server: FastCGIServer
        let number: Int
        init(server: FastCGIServer, number: Int) {
            self.server = server
            self.number = number
        }
    }

    /// One request thread, until the server stops.
    private func serve() {
        let ownListener = own?.descriptor ?? -1
        let events = clinux_epoll_listeners(listener, ownListener, stopEvent)
        guard events >= 0 else { return }
        defer { close(events) }
        // The streams inside point back to the request: its address must not change.
        let raw = UnsafeMutablePointer<FCGX_Request>.allocate(capacity: 1)
        defer { unsafe raw.deallocate() }
        guard unsafe FCGX_InitRequest(raw, -1, 0) == 0 else { return }
        defer { unsafe FCGX_Free(raw, 1) }

        var isStopping = false
        while true {
            let ready = isStopping ? ownListener : clinux_epoll_wait_one(events)
            // Of several that are ready the wait names one, and not always the event.
            if !isStopping, ready == stopEvent || isStopped.load(ordering: .sequentiallyConsistent) {
                guard own != nil else { return }
                isStopping = true
                continue
            }
            // An interrupted wait is -1, as is a listener that is not there.
            if ready != listener && (ready != ownListener || ready < 0) { continue }
            let connection = clinux_accept(ready)
            if connection < 0 {
                // Another thread or process was quicker (EAGAIN), or the peer is gone already; out of descriptors is over
                // when a request ends.
                if errno == EMFILE || errno == ENFILE {
                    usleep(10_000)
                } else if isStopping && errno != EINTR && errno != ECONNABORTED {
                    return
                }
                continue
            }
            limitWaits(connection)
            unsafe raw.pointee.ipcFd = connection
            unsafe raw.pointee.keepConnection = 1
            // A malformed request makes libfcgi close the connection, try the listener (-1) and say EBADF.
            guard unsafe FCGX_Accept_r(raw) == 0 else { continue }
            // Kept connections would pin idle threads; END_REQUEST and a close serve a peer that asked for one as well.
            unsafe raw.pointee.keepConnection = 0
            var request = unsafe FastCGIRequest(accepted: raw)
            handler(&request)
        }
    }

    private func limitWaits(_ connection: CInt) {
        var limit = timeval(tv_sec: Int(peerTimeout.components.seconds), tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        unsafe setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
        unsafe setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
    }
}
