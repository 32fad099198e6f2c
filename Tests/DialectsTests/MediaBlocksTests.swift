import Testing

@testable import Dialects

/// The first bytes of files of each kind.
enum Media {
    static let png: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13]
    static let jpeg: [UInt8] = [0xFF, 0xD8, 0xFF, 0xE0, 0]
    static let gif = Array("GIF89a....".utf8)
    static let webp = Array("RIFF....WEBPVP8 ".utf8)
    static let pdf = Array("%PDF-1.7\n".utf8)
}

@Suite struct Base64Tests {
    @Test(arguments: [
        ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ])
    func `the vectors of RFC 4648 hold, padding or not`(_ text: String, _ encoded: String) throws {
        #expect(Base64.encode(Array(text.utf8)) == encoded)
        #expect(try Base64.decode(encoded, path: "p") == Array(text.utf8))
        #expect(try Base64.decode(encoded.filter { $0 != "=" }, path: "p") == Array(text.utf8))
    }

    @Test(arguments: 1...64 as ClosedRange<UInt64>)
    func `bytes come back as they were`(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let count = Int.random(in: 1...200, using: &generator)
        let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        let text = Base64.encode(bytes)
        #expect(text.utf8.count == (count + 2) / 3 * 4)
        #expect(try Base64.decode(text, path: "p") == bytes)
    }

    @Test(arguments: ["", "=", "====", "A", "AAAAA", "AA=A", "AA A", "AA\nAA", "AA-_", "é", "AAAA!"])
    func `what is no base64 is refused`(_ text: String) throws {
        #expect(!Base64.isWellFormed(text))
        let error = try #require(throws: APIError.self) { try Base64.decode(text, path: "here") }
        #expect(error.parameter == "here")
    }
}

@Suite struct MediaBlocksTests {
    private static func url(_ type: String, _ bytes: [UInt8]) -> String {
        "data:\(type);base64,\(Base64.encode(bytes))"
    }

    @Test(arguments: [
        ("image/png", Media.png, "image/png"), ("image/jpeg", Media.jpeg, "image/jpeg"),
        ("image/jpg", Media.jpeg, "image/jpeg"), ("image/gif", Media.gif, "image/gif"),
        ("image/webp", Media.webp, "image/webp"), ("IMAGE/PNG", Media.png, "image/png"),
        ("image/png;charset=x", Media.png, "image/png"),
    ])
    func `an image's data becomes a source of the API's`(_ type: String, _ bytes: [UInt8], _ expected: String) throws {
        #expect(
            try MediaBlocks.image(url: Self.url(type, bytes), path: "p") == [
                "type": "image",
                "source": ["type": "base64", "media_type": .string(expected), "data": .string(Base64.encode(bytes))],
            ])
    }

    @Test(arguments: ["https://example.org/a.png", "http://x/y", "HTTPS://X/"])
    func `a URL goes to the API, which fetches it`(_ url: String) throws {
        #expect(
            try MediaBlocks.image(url: url, path: "p") == [
                "type": "image", "source": ["type": "url", "url": .string(url)],
            ])
        #expect(
            try MediaBlocks.document(url: url, path: "p") == [
                "type": "document", "source": ["type": "url", "url": .string(url)],
            ])
    }

    @Test(arguments: [
        "", "x", "file:///etc/passwd", "/etc/passwd", "ftp://x/y", "data:", "data:,", "data:image/png,abc",
        "data:image/png;base64", "data:image/png;base64,", "data:image/png;base64,!!!!", "data:image/png;base64,AAAA",
        "data:image/svg+xml;base64,AAAA", "data:;base64,iVBORw0KGgo", "data:image/png;base64,iVBORw0KGgo=====x",
        " https://x/", "data:application/pdf;base64,JVBERi0xLjc",
    ])
    func `anything else is no image`(_ url: String) throws {
        let error = try #require(throws: APIError.self) { try MediaBlocks.image(url: url, path: "a.b") }
        #expect(error.kind == .invalidRequest)
        #expect(error.parameter == "a.b")
        #expect(error.message.contains("`a.b`"))
    }

    @Test func `a file is a document with its name, or an image`() throws {
        let pdf = Base64.encode(Media.pdf)
        let source: JSONValue = ["type": "base64", "media_type": "application/pdf", "data": .string(pdf)]
        #expect(
            try MediaBlocks.file(data: pdf, name: "a.pdf", path: "p") == [
                "type": "document", "source": source, "title": "a.pdf",
            ])
        #expect(
            try MediaBlocks.file(data: Self.url("application/pdf", Media.pdf), name: " ", path: "p") == [
                "type": "document", "source": source,
            ])
        #expect(
            try MediaBlocks.file(data: Self.url("text/markdown", Array("# é".utf8)), name: nil, path: "p") == [
                "type": "document", "source": ["type": "text", "media_type": "text/plain", "data": "# é"],
            ])
        #expect(try MediaBlocks.file(data: Self.url("image/png", Media.png), name: "x", path: "p")["type"] == "image")
    }

    @Test(arguments: [
        "AAAA", "data:application/pdf;base64,AAAA", "data:application/zip;base64,AAAA", "data:text/plain;base64,!",
        "data:text/plain,x", "https://x/a.pdf", "",
    ])
    func `a file that can't be sent is refused`(_ data: String) throws {
        let error = try #require(throws: APIError.self) { try MediaBlocks.file(data: data, name: nil, path: "p") }
        #expect(error.parameter == "p")
    }
}
