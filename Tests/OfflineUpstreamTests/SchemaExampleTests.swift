import Dialects
import Testing

@testable import OfflineUpstream

@Suite struct SchemaExampleTests {
    private static let schemas: [(String, String)] = [
        (#"{"type":"string"}"#, #""x""#), (#"{"type":"integer"}"#, "1"), (#"{"type":"number"}"#, "1.5"),
        (#"{"type":"boolean"}"#, "true"), (#"{"type":"array"}"#, "[]"), (#"{"type":"null"}"#, "null"),
        (#"{"type":"object"}"#, "{}"), ("{}", #""x""#), ("true", #""x""#), (#"{"type":["string","null"]}"#, #""x""#),
        (#"{"enum":["b","a"]}"#, #""b""#), (#"{"const":7}"#, "7"), (#"{"type":"string","enum":["m"]}"#, #""m""#),
        (#"{"type":"string","minLength":3}"#, #""xxx""#), (#"{"type":"string","maxLength":0}"#, #""""#),
        (#"{"type":"string","format":"date"}"#, #""2026-01-01""#), (#"{"type":"string","format":"own"}"#, #""x""#),
        (#"{"type":"integer","minimum":5}"#, "5"), (#"{"type":"integer","exclusiveMinimum":5}"#, "6"),
        (#"{"type":"integer","maximum":-3}"#, "-3"), (#"{"type":"integer","exclusiveMaximum":-3}"#, "-4"),
        (#"{"type":"integer","minimum":5,"multipleOf":4}"#, "8"), (#"{"type":"integer","minimum":2.5}"#, "3"),
        (#"{"type":"number","minimum":0,"maximum":1}"#, "1"), (#"{"type":"number","multipleOf":0.25}"#, "1.5"),
        (#"{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":0.5}"#, "0.25"),
        (#"{"type":"array","minItems":2,"items":{"type":"boolean"}}"#, "[true,true]"),
        (#"{"type":"array","minItems":2,"prefixItems":[{"const":1}],"items":{"const":2}}"#, "[1,2]"),
        (#"{"type":"array","minItems":1,"items":[{"const":1}]}"#, "[1]"),
        (#"{"properties":{"a":{},"b":{}},"required":["b"]}"#, #"{"b":"x"}"#),
        (#"{"type":"object","required":["z"]}"#, #"{"z":"x"}"#),
        (
            #"{"type":"object","properties":{"o":{"type":"object","properties":{"n":{"type":"number"}},"required":["n"]}},"required":["o"]}"#,
            #"{"o":{"n":1.5}}"#
        ),
        (#"{"anyOf":[{"type":"integer"},{"type":"string"}]}"#, "1"), (#"{"oneOf":[{"const":"a"},{}]}"#, #""a""#),
        (
            #"{"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{}},"required":["b","a"]}]}"#,
            #"{"a":1,"b":"x"}"#
        ),
        (
            ##"{"$ref":"#/$defs/N","$defs":{"N":{"type":"object","properties":{"c":{"$ref":"#/$defs/N"},"v":{"$ref":"#/$defs/a~1b"}},"required":["v"]},"a/b":{"type":"integer"}}}"##,
            #"{"v":1}"#
        ),
        (##"{"$ref":"#/nowhere"}"##, #""x""#), (#"{"$ref":"https://example.com/"}"#, #""x""#),
    ]

    @Test(arguments: schemas)
    func `the value fits the schema`(schema: String, value: String) throws {
        let bytes = JSONWriter.bytes(SchemaExample.value(for: try Support.json(schema)))
        #expect(String(decoding: bytes, as: UTF8.self) == value)
    }

    @Test(
        .timeLimit(.minutes(1)),
        arguments: [
            ##"{"$ref":"#"}"##, ##"{"allOf":[{"$ref":"#"}]}"##,
            ##"{"type":"object","properties":{"a":{"$ref":"#"},"b":{"$ref":"#"}},"required":["a","b"]}"##,
        ])
    func `a schema without end has an example with one`(schema: String) throws {
        _ = SchemaExample.value(for: try Support.json(schema))
        _ = SchemaExample.misfit(for: try Support.json(schema))
    }

    private static let misfits: [(String, String)] = [
        (#"{"type":"object"}"#, #"{"__invalid__":1}"#),
        (#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}"#, #"{"__invalid__":1}"#),
        (
            ##"{"$ref":"#/$defs/N","$defs":{"N":{"properties":{"a":{},"b":{"type":"object"},"c":{"type":"array"}},"required":["a"]}}}"##,
            #"{"__invalid__":1,"b":1,"c":{"__invalid__":1}}"#
        ),
    ]

    @Test(arguments: misfits)
    func `a misfit lacks a member and has wrong types`(schema: String, value: String) throws {
        let bytes = JSONWriter.bytes(SchemaExample.misfit(for: try Support.json(schema)))
        #expect(String(decoding: bytes, as: UTF8.self) == value)
    }
}
