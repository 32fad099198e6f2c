import CFastCGI
import CLinux
import Glibc

/// Why a request's body could not be read.
public enum RequestBodyError: Error, Sendable, Equatable {
    /// More bytes came than allowed.
    case tooLarge(limitBytes: Int)
    /// The connection ended before the body did: nginx closed it, because the client left.
    case aborted
    /// Nothing came for the socket's receive time-out.
    case timedOut
}

/// One FastCGI request in the responder role, given back to libfcgi when it leaves scope.
///
/// `@safe`: the pointer is allocated by the thread's accept loop, outlives this value and is used by nobody else meanwhile.
/// Belongs to the thread that accepted it. The reply is CGI's: `Status:` and other header lines, an empty line, the body.
@safe
public struct FastCGIRequest: ~Copyable {
    /// The most that one ``write(_:)`` takes: a full FastCGI record of libfcgi's output buffer (8192 bytes less the
    /// record's header).
    ///
    /// After `POLLOUT` a write of this size never blocks, because the kernel reports a Unix socket writable only when
    /// three quarters of its buffer are free.
    public static let maximumWriteBytes = 8184

    private let raw: UnsafeMutablePointer<FCGX_Request>
    private var isFinished = false

    /// Takes over a request that `FCGX_Accept_r` has parsed.
    init(accepted raw: UnsafeMutablePointer<FCGX_Request>) { unsafe self.raw = unsafe raw }

    deinit { if !isFinished { end() } }

    /// Ends the request now: nginx reads END_REQUEST, the client has the whole reply, and the connection is closed.
    public mutating func finish() {
        if !isFinished { end() }
        isFinished = true
    }

    /// What is left of the body is read first: nginx treats a connection closed under its writes as a failed upstream and
    /// would replace the reply with a 502.
    private func end() {
        discardBody()
        unsafe FCGX_Finish_r(raw)
    }

    /// The connection to nginx.
    ///
    /// Poll it for `POLLRDHUP` (the client left) and `POLLOUT`; never read or write it.
    public var descriptor: CInt { unsafe isFinished ? -1 : raw.pointee.ipcFd }

    /// A parameter such as `REQUEST_METHOD` or `HTTP_AUTHORIZATION`; nil if nginx sent none or it is no UTF-8.
    public func parameter(_ name: String) -> String? {
        // They are libfcgi's, and gone with the request.
        if isFinished { return nil }
        return unsafe FCGX_GetParam(name, raw.pointee.envp).flatMap { unsafe String(validatingCString: $0) }
    }

    /// Whether nginx has sent this request on, because another responder asked for that with ``handOver(to:)``.
    ///
    /// Then it stays here, whatever is found: a request changes hands once. A client can't set this.
    public var isHandedOver: Bool { parameter("CLAUDE_FCGI_HANDED_OVER") != nil }

    /// Has nginx send the request, as it came, to another responder's own socket; in place of any reply.
    ///
    /// nginx takes its answer for the client from there, and hears of nothing more from here: it closes this connection.
    /// Where that responder is gone it sends the request to the shared socket, so to any.
    ///
    /// - Parameter pid: The other responder's process.
    /// - Returns: False when the connection is gone.
    public func handOver(to pid: Int32) -> Bool {
        let name = ListeningSocket.ownName(pid: pid)
        return write(
            Array("Status: 200 OK\r\nX-Accel-Redirect: @claude_fcgi\r\nX-Responder: \(name)\r\n\r\n".utf8)[...])
    }

    /// Reads the whole body.
    ///
    /// nginx has buffered it (`fastcgi_request_buffering on`), so this runs at memory speed.
    ///
    /// - Parameter limitBytes: The most that is accepted; what is beyond is not kept.
    /// - Throws: ``RequestBodyError``.
    public func readBody(limitBytes: Int) throws(RequestBodyError) -> [UInt8] {
        let announced = parameter("CONTENT_LENGTH").flatMap { Int($0) }
        if let announced, announced > limitBytes { throw .tooLarge(limitBytes: limitBytes) }
        var body: [UInt8] = []
        body.reserveCapacity(announced.map { max(0, $0) } ?? 4096)
        while true {
            let count = unsafe withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 1) { chunk in
                let text = unsafe chunk.baseAddress?.assumingMemoryBound(to: CChar.self)
                let count = unsafe Int(FCGX_GetStr(text, 65536, raw.pointee.in))
                if count > 0 {
                    unsafe body.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[0..<count]))
                }
                return count
            }
            if body.count > limitBytes { throw .tooLarge(limitBytes: limitBytes) }
            if count < 65536 { break }
        }
        // GetStr returns short at the end, at an abort and at an error alike; only the stream's error tells them apart.
        let error = unsafe FCGX_GetError(raw.pointee.in)
        if error == EAGAIN { throw .timedOut }
        if error != 0 { throw .aborted }
        if let announced, body.count < announced { throw .aborted }
        return body
    }

    /// Sends up to ``maximumWriteBytes`` at once, as one record and one write.
    ///
    /// Call it after `POLLOUT`, then it does not block.
    ///
    /// - Returns: False when the connection is gone. Only the stream's error is reliable: after a failed flush
    ///   libfcgi's own return values say success.
    public func write(_ bytes: ArraySlice<UInt8>) -> Bool {
        precondition(bytes.count <= Self.maximumWriteBytes, "more than one record")
        let out = unsafe raw.pointee.out
        unsafe bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            _ = unsafe FCGX_PutStr(base.assumingMemoryBound(to: CChar.self), CInt(buffer.count), out)
        }
        _ = unsafe FCGX_FFlush(out)
        return unsafe FCGX_GetError(out) == 0
    }

    /// Whether nginx closed the connection, because the client left or gave up.
    public var isAbandoned: Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLRDHUP), revents: 0)
        return unsafe poll(&entry, 1, 0) == 1
    }

    private func discardBody() {
        unsafe withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 1) { chunk in
            let text = unsafe chunk.baseAddress?.assumingMemoryBound(to: CChar.self)
            while unsafe FCGX_GetStr(text, 65536, raw.pointee.in) == 65536 {}
        }
    }
}
