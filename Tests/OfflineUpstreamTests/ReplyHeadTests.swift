import Testing

@testable import OfflineUpstream

@Suite struct ReplyHeadTests {
    @Test func `every reply has its request's id`() {
        let head = String(decoding: ReplyHead(unique: "1").bytes(type: "text/plain", length: 3), as: UTF8.self)
        #expect(
            head == "Status: 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-cache\r\n"
                + "request-id: req_offline_1\r\nContent-Length: 3\r\n\r\n")
    }

    @Test(arguments: [
        (0.5, "allowed", "0.5"), (0.9, "allowed_warning", "0.9"), (1, "rejected", "1.0"),
    ])
    func `a rate limit is told in headers`(utilization: Double, status: String, number: String) {
        let lines = RateLimit(utilization: utilization).headers(now: 1000).split(separator: "\r\n")
        let warning = ["anthropic-ratelimit-unified-5h-surpassed-threshold: 0.8"]
        #expect(
            lines.map(String.init) == [
                "anthropic-ratelimit-unified-status: \(status)", "anthropic-ratelimit-unified-reset: 4600",
                "anthropic-ratelimit-unified-representative-claim: five_hour",
                "anthropic-ratelimit-unified-5h-utilization: \(number)", "anthropic-ratelimit-unified-5h-reset: 4600",
                "anthropic-ratelimit-unified-5h-status: \(status)",
            ] + (status == "allowed" ? [] : warning))
    }
}
