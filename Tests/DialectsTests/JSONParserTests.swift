@testable import Dialects
import Testing

@Suite struct JSONParserTests {
    @Test(
        arguments: [
            ("null", nil), ("true", true), ("false", false), ("0", 0), ("-0", .number("-0")), ("\"\"", ""), ("[]", []),
            ("{}", [:]), (" \t\r\n[ 1 , 2 ] \n", [1, 2]), ("[[],{}]", [[], [:]]),
            (#"{"a":{"b":[null]}}"#, ["a": ["b": [nil]]]),
            (#"{"":1}"#, ["": 1]), (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{C}\n\r\t"),
            (#""\u0041\u00e9\u00E9""#, "A\u{E9}\u{E9}"),
            (#""\uD83D\uDE00""#, "😀"), (#""\u0000""#, "\u{0}"), (#""é😀""#, "é😀"),
            ("\"\u{7F}\u{2028}\"", "\u{7F}\u{2028}"),
            (#"{"a":1,"b":2}"#, ["a": 1, "b": 2]),
        ] as [(String, JSONValue)])
    func `RFC 8259 accepts`(_ text: String, _ expected: JSONValue) throws {
        #expect(try json(text) == expected)
    }

    @Test(arguments: [
        "", " ", "nul", "True", "nulll", "[1,]", "[,1]", "[1 2]", "[1", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}",
        "{a:1}",
        "{'a':1}", "{1:1}", "[1]]", "1 2", "\"a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12G4\"", "\"\\u 123\"",
        "\"a\nb\"",
        "\"\t\"", "\"\u{0}\"", "01", "-", "-a", "+1", ".5", "1.", "1.e3", "1e", "1e+", "0x10", "NaN", "Infinity",
        "-Infinity",
        "1_000", "// c\n1", "[1]/**/", "\u{FEFF}1", "\u{A0}1", "tru e", "{\"a\":1 \"b\":2}", "[\"a\":1]", "]", "}", ",",
        ":",
    ])
    func `RFC 8259 rejects`(_ text: String) {
        #expect(throws: JSONError.self) { try json(text) }
    }

    @Test(arguments: [
        ("[1,x]", 3, "a value is expected"), ("{\"a\" 1}", 5, "a colon is expected"),
        ("1 x", 2, "there is text after the end of the document"), ("[1", 2, "the text ends inside an array or object"),
        ("[1.x]", 1, "a number has no digit after its point"), ("\"abc", 4, "a string has no end"),
        ("", 0, "the text ends where a value is expected"),
    ])
    func `a fault has its place and its reason`(_ text: String, _ offset: Int, _ reason: String) {
        #expect(throws: JSONError(reason: reason, offset: offset)) { try json(text) }
    }

    @Test(arguments: ["[", "{\"a\":"])
    func `nesting is bounded`(_ opening: String) throws {
        let closing = opening == "[" ? "]" : "}"
        let deepest = String(repeating: opening, count: 256) + "1" + String(repeating: closing, count: 256)
        #expect(throws: Never.self) { try json(deepest) }
        #expect(throws: JSONError.self) { try json(opening + deepest + closing) }
        #expect(throws: JSONError.self) { try json(String(repeating: opening, count: 1_000_000)) }
    }

    @Test func `siblings do not count as nesting`() throws {
        let many = "[" + Array(repeating: "[]", count: 1000).joined(separator: ",") + "]"
        #expect(try json(many).arrayValue?.count == 1000)
    }

    @Test(
        arguments: [
            [0x80], [0xC0, 0x80], [0xC3], [0xE2, 0x82], [0xED, 0xA0, 0x80], [0xF0, 0x80, 0x80, 0x80],
            [0xF4, 0x90, 0x80, 0x80],
            [0xFF], [0xFE],
        ] as [[UInt8]])
    func `invalid UTF-8 is refused`(_ bytes: [UInt8]) {
        #expect(throws: JSONError.self) { try JSONParser.parse([0x22] + bytes + [0x22]) }
        #expect(throws: JSONError.self) { try JSONParser.parse([0x22, 0x5C, 0x6E] + bytes + [0x22]) }
        #expect(throws: JSONError.self) { try JSONParser.parse([0x7B, 0x22] + bytes + [0x22, 0x3A, 0x31, 0x7D]) }
        #expect(throws: JSONError.self) { try JSONParser.parse(bytes) }
    }

    @Test(arguments: [
        (#""\uD800""#, "\u{FFFD}"), (#""\uDC00""#, "\u{FFFD}"), (#""\uD800x""#, "\u{FFFD}x"),
        (#""\uD800\n""#, "\u{FFFD}\n"), (#""\uD800\uD83D\uDE00""#, "\u{FFFD}😀"), (#""\uD83D\u0041""#, "\u{FFFD}A"),
        (#""\uDE00\uD83D""#, "\u{FFFD}\u{FFFD}"), (#""\uDBFF\uDFFF""#, "\u{10FFFF}"),
    ])
    func `a lone surrogate becomes the replacement character`(_ text: String, _ expected: String) throws {
        #expect(try json(text).stringValue == expected)
    }

    @Test(arguments: [
        "123456789012345678901234567890", "0.1000", "1e400", "-0.0", "1E+2", "1e-7", "3.141592653589793238462643383279",
        "9223372036854775808", "-9223372036854775808",
    ])
    func `a number keeps its spelling`(_ spelling: String) throws {
        #expect(try text(json("[\(spelling)]")) == "[\(spelling)]")
    }

    @Test(
        arguments: [
            ("3", 3), ("3.0", 3), ("3e2", 300), ("-0", 0), ("9223372036854775807", Int.max), ("3.5", nil),
            ("9223372036854775808", nil), ("-9223372036854775809", nil), ("1e400", nil), ("\"3\"", nil), ("true", nil),
            ("null", nil),
        ] as [(String, Int?)])
    func `a whole number's value`(_ text: String, _ expected: Int?) throws {
        #expect(try json(text).intValue == expected)
    }

    @Test func `of two members with one name the last is read and both are written`() throws {
        let value = try json(#"{"a":1,"b":2,"a":3}"#)
        #expect(value["a"] == 3)
        #expect(text(value) == #"{"a":1,"b":2,"a":3}"#)
    }

    @Test func `members keep their order`() throws {
        let value = try json(#"{"z":1,"a":2,"m":3}"#)
        #expect(value.objectValue?.members.map(\.key) == ["z", "a", "m"])
    }

    @Test func `a part of an array is parsed in place and offsets count from its start`() throws {
        let bytes = Array("xx[1]yy".utf8)
        #expect(try JSONParser.parse(bytes, in: 2..<5) == [1])
        #expect(throws: JSONError(reason: "the text ends inside an array or object", offset: 2)) {
            try JSONParser.parse(bytes, in: 2..<4)
        }
    }

    @Test func `no prefix of a document is a document`() throws {
        let document = Array(#"{"a":[1.5e3,true,null,"é\u00e9\n"],"b":{}}"#.utf8)
        #expect(throws: Never.self) { try JSONParser.parse(document) }
        for length in document.indices {
            #expect(throws: JSONError.self) { try JSONParser.parse(Array(document[..<length])) }
        }
    }

    @Test(arguments: 1...40)
    func `damaged documents never trap`(_ seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed))
        let document = Array(#"{"a":[1.5e3,true,null,"\uD83D\uDE00é"],"b":{"c":-0.0}}"#.utf8)
        for _ in 0..<500 {
            var damaged = document
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                damaged[Int.random(in: damaged.indices, using: &generator)] = UInt8.random(
                    in: 0...255, using: &generator)
            }
            guard let value = try? JSONParser.parse(damaged) else { continue }
            #expect((try? JSONParser.parse(JSONWriter.bytes(value))) == value)
        }
    }
}
