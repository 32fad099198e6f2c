@testable import Dialects
import Testing

@Suite struct LineBufferTests {
    private static func lines(_ buffer: inout LineBuffer) -> [String] {
        var lines: [String] = []
        while let range = buffer.nextLine() { lines.append(String(decoding: buffer.bytes[range], as: UTF8.self)) }
        return lines
    }

    @Test(
        arguments: [
            ("", []), ("a", []), ("\n", [""]), ("a\n", ["a"]), ("a\nb", ["a"]), ("a\n\nb\n", ["a", "", "b"]),
            ("a\r\n", ["a\r"]),
            ("é😀\n", ["é😀"]),
        ] as [(String, [String])])
    func `lines are cut at newlines`(_ text: String, _ expected: [String]) throws {
        var buffer = LineBuffer(limitBytes: 100)
        try buffer.append(text.utf8)
        #expect(Self.lines(&buffer) == expected)
        #expect(buffer.nextLine() == nil)
    }

    @Test(arguments: 1...30)
    func `random splits give the same lines`(_ seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        let expected = (0..<200).map { number in
            String(repeating: "é", count: Int.random(in: 0...60, using: &generator)) + "\(number)"
        }
        let bytes = Array((expected.joined(separator: "\n") + "\n").utf8)
        var buffer = LineBuffer(limitBytes: 4096)
        var found: [String] = []
        var start = 0
        while start < bytes.count {
            let end = min(bytes.count, start + Int.random(in: 1...300, using: &generator))
            try buffer.append(bytes[start..<end])
            // Lines may be left for later, too.
            if Bool.random(using: &generator) { found += Self.lines(&buffer) }
            start = end
        }
        found += Self.lines(&buffer)
        #expect(found == expected)
    }

    /// Reads as large as a pipe gives, and lines that go over several of them.
    @Test(arguments: 1...10)
    func `lines of any length keep their bytes`(_ seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        let expected = (0..<12).map { number in
            String(repeating: "x", count: Int.random(in: 0...90_000, using: &generator)) + "\(number)"
        }
        let bytes = Array((expected.joined(separator: "\n") + "\n").utf8)
        var buffer = LineBuffer(limitBytes: 1 << 20)
        var found: [String] = []
        var start = 0
        while start < bytes.count {
            let end = min(bytes.count, start + Int.random(in: 1...LineBuffer.readBytes, using: &generator))
            try buffer.append(bytes[start..<end])
            if Bool.random(using: &generator) { found += Self.lines(&buffer) }
            start = end
        }
        found += Self.lines(&buffer)
        #expect(found == expected)
    }

    @Test func `a long line's memory is given back`() throws {
        var buffer = LineBuffer(limitBytes: 1 << 24)
        try buffer.append(Array(repeating: UInt8(ascii: "x"), count: 1 << 22) + [0x0A])
        #expect(Self.lines(&buffer).count == 1)
        try buffer.append("a\n".utf8)
        #expect(Self.lines(&buffer) == ["a"])
        #expect(buffer.bytes.count == LineBuffer.readBytes)
    }

    @Test func `what a read returns is handed on`() throws {
        var buffer = LineBuffer(limitBytes: 10)
        let failed = unsafe try buffer.append { _ in -1 }
        let ended = unsafe try buffer.append { _ in 0 }
        #expect(failed == -1 && ended == 0)
        #expect(buffer.nextLine() == nil)
    }

    @Test func `a line without end is refused once it outgrows the limit`() throws {
        var buffer = LineBuffer(limitBytes: 10)
        try buffer.append(Array("0123456789".utf8))
        #expect(throws: LineBuffer.LineTooLong(limitBytes: 10)) { try buffer.append(Array("x".utf8)) }
    }

    @Test func `many short lines in one read are no long line`() throws {
        var buffer = LineBuffer(limitBytes: 10)
        try buffer.append(Array(repeating: UInt8(0x0A), count: 1000))
        #expect(Self.lines(&buffer).count == 1000)
    }

    @Test func `consumed lines do not count against the limit`() throws {
        var buffer = LineBuffer(limitBytes: 10)
        for _ in 0..<20_000 {
            try buffer.append(Array("12345678\n".utf8))
            #expect(Self.lines(&buffer) == ["12345678"])
        }
        #expect(buffer.bytes.count <= 2 * LineBuffer.readBytes)
    }

    /// A whole line in front must not let the next one grow without end.
    @Test func `a line without end behind a whole one is refused too`() throws {
        var buffer = LineBuffer(limitBytes: 10)
        #expect(throws: LineBuffer.LineTooLong.self) {
            try buffer.append(Array("a\n".utf8))
            _ = buffer.nextLine()
            for _ in 0..<20 {
                try buffer.append(Array("b".utf8))
                _ = buffer.nextLine()
            }
        }
    }
}

extension LineBuffer {
    /// Adds bytes, in as many reads as they need.
    mutating func append(_ chunk: some Collection<UInt8>) throws {
        var rest = Array(chunk)
        while !rest.isEmpty {
            let count = unsafe try append { room in
                let count = min(room.count, rest.count)
                unsafe room.copyBytes(from: rest[..<count])
                return count
            }
            rest.removeFirst(count)
        }
    }
}
