import Dialects
import Testing

@Suite struct JSONWriterTests {
    @Test(
        arguments: [
            (nil, "null"), (true, "true"), (false, "false"), (42, "42"), (.number("1e3"), "1e3"), ("", "\"\""),
            ([], "[]"), ([:], "{}"), ([1, "a", nil], #"[1,"a",null]"#),
            (["a": ["b": []], "c": 1], #"{"a":{"b":[]},"c":1}"#),
            ("\"\\/", #""\"\\/""#), ("\n\r\t", #""\n\r\t""#),
            ("\u{0}\u{8}\u{1F}\u{7F}", #""\u0000\u0008\u001f\u007f""#),
            ("é😀\u{2028}", "\"é😀\u{2028}\""), (["\"": 1], #"{"\"":1}"#),
        ] as [(JSONValue, String)])
    func `a value is written without spaces`(_ value: JSONValue, _ expected: String) {
        #expect(text(value) == expected)
    }

    @Test(arguments: 1...60)
    func `what is written is read back the same`(_ seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        for _ in 0..<50 {
            let value = Self.random(depth: 5, &generator)
            let bytes = JSONWriter.bytes(value)
            #expect(try JSONParser.parse(bytes) == value)
            #expect(!bytes.contains(0x0A) && !bytes.contains(0x0D), "a line of JSON has no line end inside")
        }
    }

    @Test func `a member is replaced in place, appended and removed`() {
        var object = JSONObject([.init(key: "a", value: 1), .init(key: "b", value: 2)])
        object["a"] = 3
        object["c"] = 4
        object["b"] = nil
        #expect(text(.object(object)) == #"{"a":3,"c":4}"#)
        #expect(object["b"] == nil)
    }

    private static func random(depth: Int, _ generator: inout SeededGenerator) -> JSONValue {
        switch Int.random(in: 0..<(depth > 0 ? 7 : 5), using: &generator) {
        case 0: return .null
        case 1: return .bool(Bool.random(using: &generator))
        case 2: return .integer(Int.random(in: .min ... .max, using: &generator))
        case 3: return .number("\(Double.random(in: -1e9...1e9, using: &generator))")
        case 4: return .string(randomText(&generator))
        case 5:
            let count = Int.random(in: 0...4, using: &generator)
            return .array((0..<count).map { _ in random(depth: depth - 1, &generator) })
        default:
            let count = Int.random(in: 0...4, using: &generator)
            return .object(
                JSONObject(
                    (0..<count).map { _ in
                        .init(key: randomText(&generator), value: random(depth: depth - 1, &generator))
                    }))
        }
    }

    private static func randomText(_ generator: inout SeededGenerator) -> String {
        var scalars = String.UnicodeScalarView()
        for _ in 0..<Int.random(in: 0...12, using: &generator) {
            let limit: UInt32 = [0x20, 0x80, 0x800, 0x10000, 0x110000].randomElement(using: &generator) ?? 0x80
            // A surrogate is no scalar.
            scalars.append(Unicode.Scalar(UInt32.random(in: 0..<limit, using: &generator)) ?? "x")
        }
        return String(scalars)
    }
}
