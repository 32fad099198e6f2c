import Admission
import Glibc

/// `GET /metrics`: the scoreboard in Prometheus' text format.
///
/// Every metric is declared here and nowhere else.
enum MetricsPage {
    /// Statuses by number in shared memory; the last number is for any other.
    static let statuses = [200, 400, 401, 403, 404, 405, 408, 413, 429, 499, 500, 502, 503, 504, 529, 202, 410]

    /// A status's number in shared memory.
    static func number(ofStatus status: Int) -> Int { statuses.firstIndex(of: status) ?? statuses.count }

    /// The page.
    static func text(_ board: Scoreboard) -> String {
        var page = Page()
        let totals = board.totals
        page.metric("requests_running", "gauge", "Requests that hold a place to run.", board.counts.running)
        page.metric("requests_waiting", "gauge", "Requests that wait for a place.", board.counts.waiting)
        page.metric("concurrency_limit", "gauge", "Places to run (WORKER_CONCURRENCY).", board.limits.concurrency)
        page.metric("queue_limit", "gauge", "Places to wait (MAX_QUEUE_SIZE).", board.limits.queueLimit)
        page.metric("responders", "gauge", "Live responder processes.", board.responders.count)
        page.metric(
            "spare_processes", "gauge", "CLI processes that wait for a first request (SPARES).",
            board.responders.reduce(0) { $0 + $1.spares })
        page.metric(
            "live_processes", "gauge", "CLI processes that wait for the next turn of a conversation (LIVE_MAX).",
            board.responders.reduce(0) { $0 + $1.live })
        page.metric(
            "spare_memory_bytes", "gauge", "Memory that spare processes have for themselves.",
            board.responders.reduce(0) { $0 + $1.spareKibibytes } << 10)
        page.metric(
            "live_memory_bytes", "gauge", "Memory that live processes have for themselves.",
            board.responders.reduce(0) { $0 + $1.liveKibibytes } << 10)
        page.metric("admitted_total", "counter", "Requests that got a place to run.", totals.admitted)
        page.metric("refused_total", "counter", "Requests refused because the queue was full.", totals.refused)
        page.metric("queue_timeouts_total", "counter", "Requests whose time in the queue ran out.", totals.timedOut)
        page.metric("queue_abandoned_total", "counter", "Requests whose client left the queue.", totals.abandoned)
        page.metric("reaped_total", "counter", "Places freed after a responder's death.", totals.reaped)
        page.metric("retries_total", "counter", "Attempts after a first one that failed.", totals.retries)
        page.metric("heartbeats_total", "counter", "Heartbeats sent in silent streams.", totals.heartbeats)
        page.metric("input_tokens_total", "counter", "Tokens of prompts.", totals.inputTokens)
        page.metric("output_tokens_total", "counter", "Tokens of answers.", totals.outputTokens)
        page.metric(
            "cache_read_tokens_total", "counter", "Tokens of prompts that were read from the cache.",
            totals.cacheReadTokens)
        page.head("cost_usd_total", "counter", "What the CLI said its runs cost.")
        page.line("cost_usd_total", "", "\(Double(totals.costMicrodollars) / 1e6)")
        page.head("requests_total", "counter", "Finished requests by route and status.")
        for (route, row) in totals.requests.enumerated() where route < Route.names.count {
            for (number, count) in row.enumerated() where count > 0 {
                let status = number < statuses.count ? "\(statuses[number])" : "other"
                page.line("requests_total", "{route=\"\(Route.names[route])\",status=\"\(status)\"}", "\(count)")
            }
        }
        let names = ["queue_wait_seconds", "first_byte_seconds", "request_seconds"]
        let helps = [
            "From a request's arrival to its place.", "From a request's arrival to the answer's first piece.",
            "From a request's arrival to its end.",
        ]
        for (index, histogram) in totals.histograms.enumerated() where index < names.count {
            page.histogram(names[index], helps[index], histogram)
        }
        return page.text
    }

    private struct Page {
        var text = ""

        mutating func head(_ name: String, _ type: String, _ help: String) {
            text += "# HELP claude_fcgi_\(name) \(help)\n# TYPE claude_fcgi_\(name) \(type)\n"
        }

        mutating func line(_ name: String, _ labels: String, _ value: String) {
            text += "claude_fcgi_\(name)\(labels) \(value)\n"
        }

        mutating func metric(_ name: String, _ type: String, _ help: String, _ value: Int) {
            head(name, type, help)
            line(name, "", "\(value)")
        }

        mutating func histogram(_ name: String, _ help: String, _ histogram: Scoreboard.Histogram) {
            head(name, "histogram", help)
            var sum = 0
            for (index, count) in histogram.buckets.enumerated() {
                sum += count
                let bounds = Scoreboard.Histogram.bounds
                line("\(name)_bucket", "{le=\"\(index < bounds.count ? "\(bounds[index])" : "+Inf")\"}", "\(sum)")
            }
            line("\(name)_sum", "", "\(histogram.sum)")
            line("\(name)_count", "", "\(sum)")
        }
    }
}
