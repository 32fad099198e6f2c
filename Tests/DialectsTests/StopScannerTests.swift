import Dialects
import Testing

@Suite struct StopScannerTests {
    /// What a text becomes that comes in these pieces.
    private static func scan(_ pieces: [String], _ words: [String]) -> (text: String, word: String?) {
        var scanner = StopScanner(words)
        var text = ""
        for piece in pieces {
            switch scanner.scan(piece) {
            case .text(let certain): text += certain
            case .stopped(let rest, let word): return (text + rest, word)
            }
        }
        return (text + scanner.flush(), nil)
    }

    private static func scalars(_ text: String) -> [String] { text.unicodeScalars.map { String($0) } }

    /// Equal as bytes: a piece may have ended inside what Swift counts as one character.
    private static func same(_ left: String, _ right: String) -> Bool { Array(left.utf8) == Array(right.utf8) }

    @Test(
        arguments: [
            ("", ["x"], "", nil), ("abc", [], "abc", nil), ("abc", [""], "abc", nil), ("abc", ["d"], "abc", nil),
            ("abc", ["b"], "a", "b"), ("abc", ["abc"], "", "abc"), ("abc", ["c"], "ab", "c"),
            ("abcabc", ["ca"], "ab", "ca"),
            ("aab", ["ab"], "a", "ab"), ("ababac", ["abac"], "ab", "abac"), ("ab", ["abc"], "ab", nil),
            ("one two", ["two", "one"], "", "one"), ("xyz", ["z", "y"], "x", "y"), ("a\n\nb", ["\n\n"], "a", "\n\n"),
            ("héllo", ["é"], "h", "é"), ("a😀b", ["😀"], "a", "😀"), ("e\u{301}x", ["x"], "e\u{301}", "x"),
            ("aaaa", ["aaaaa"], "aaaa", nil), ("aaaab", ["aab"], "aa", "aab"), ("END", ["end"], "END", nil),
        ] as [(String, [String], String, String?)])
    func `a text ends before the first word, whole or in the smallest pieces`(
        _ text: String, _ words: [String], _ expected: String, _ word: String?
    ) {
        for pieces in [[text], Self.scalars(text)] {
            let outcome = Self.scan(pieces, words)
            #expect(Self.same(outcome.text, expected), "\(pieces)")
            #expect(outcome.word == word, "\(pieces)")
        }
    }

    @Test(arguments: [["xab"], ["x", "a", "b"]])
    func `the word that is whole first counts, however the text is split`(_ pieces: [String]) {
        #expect(Self.scan(pieces, ["ab", "a"]).word == "a")
        #expect(Self.scan(pieces, ["b", "ab"]).word == "ab")
        #expect(Self.scan(pieces, ["xabc", "ab"]).word == "ab")
    }

    @Test(
        arguments: [
            ("abc", ["cd"], "ab"), ("ab", ["cd"], "ab"), ("abab", ["ababc"], ""), ("xa", ["abc", "b"], "x"),
            ("x", ["y"], "x"),
        ] as [(String, [String], String)])
    func `only what may begin a word is held back`(_ text: String, _ words: [String], _ certain: String) {
        var scanner = StopScanner(words)
        #expect(scanner.scan(text) == .text(certain))
        #expect(certain + scanner.flush() == text)
        #expect(scanner.flush().isEmpty)
    }

    /// Against a search in the whole text, with words of one length: of those none can be a part of another.
    @Test(arguments: 0..<200 as Range<UInt64>)
    func `random splits give what a search in the whole text gives`(_ seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let alphabet = seed % 2 == 0 ? ["a", "b"] : ["a", "é", "😀"]
        let length = Int.random(in: 1...4, using: &generator)
        func random(_ count: Int) -> String {
            (0..<count).map { _ in alphabet.randomElement(using: &generator) ?? "" }.joined()
        }
        let words = (0..<Int.random(in: 1...3, using: &generator)).map { _ in random(length) }
        let text = random(Int.random(in: 0...30, using: &generator))
        let all = Array(text)
        let place = (0..<max(0, all.count - length + 1)).first { words.contains(String(all[$0..<($0 + length)])) }
        let expected = place.map { String(all[..<$0]) } ?? text
        let word = place.map { String(all[$0..<($0 + length)]) }
        for _ in 0..<5 {
            var pieces: [String] = []
            var rest = all[...]
            while !rest.isEmpty {
                let count = Int.random(in: 1...6, using: &generator)
                pieces.append(String(rest.prefix(count)))
                rest = rest.dropFirst(count)
            }
            let outcome = Self.scan(pieces, words)
            #expect(outcome.text == expected, "\(words) \(pieces)")
            #expect(outcome.word == word, "\(words) \(pieces)")
        }
    }
}
