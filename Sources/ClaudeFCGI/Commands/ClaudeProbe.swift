import Dialects
import Glibc
import ProcessControl

/// Asks the CLI for its version without running anything.
enum ClaudeProbe {
    /// What `claude --version` says; nil when it can't be run or says something else.
    static func version(_ path: String) -> ClaudeVersion? {
        let environment = ["HOME=/nonexistent", "PATH=/usr/bin:/bin", "DISABLE_AUTOUPDATER=1"]
        guard
            var child = try? ChildProcess(
                ChildCommand(executable: path, arguments: ["--version"], environment: environment, directory: "/"))
        else { return nil }
        child.closeInput()
        _ = child.waitForExit(timeout: .seconds(20))
        var text = [UInt8](repeating: 0, count: 256)
        let count = unsafe read(child.output, &text, text.count)
        return count > 0 ? ClaudeVersion(String(decoding: text[..<count], as: UTF8.self)) : nil
    }
}
