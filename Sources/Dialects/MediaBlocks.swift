/// Images and documents in the Messages API's form.
///
/// Nothing is fetched here: a URL goes to the API, which fetches it. Data is looked at as far as telling a file's kind takes,
/// because the CLI puts a line of text in place of an image that it can't read, and the caller would never know.
enum MediaBlocks {
    /// Images that the API takes.
    static let imageTypes = ["image/png", "image/jpeg", "image/gif", "image/webp"]

    /// An image from a `data:` URL or an http(s) URL.
    static func image(url: String, path: String) throws(APIError) -> JSONValue {
        guard let (type, data) = try dataURL(url, path: path) else {
            try requireHTTP(url, path: path)
            return ["type": "image", "source": ["type": "url", "url": .string(url)]]
        }
        return try image(mediaType: type, data: data, path: path)
    }

    /// An image from base64.
    static func image(mediaType: String, data: String, path: String) throws(APIError) -> JSONValue {
        guard imageTypes.contains(mediaType) else {
            throw .invalid(path, "`\(path)`: the media type must be one of \(imageTypes.joined(separator: ", ")).")
        }
        let start = try beginning(ofBase64: data, path: path)
        guard isImage(start) else {
            throw .invalid(path, "`\(path)` is not a PNG, JPEG, GIF or WebP image. Convert it to one.")
        }
        return ["type": "image", "source": source(mediaType, data)]
    }

    /// A document that the API fetches.
    static func document(url: String, path: String) throws(APIError) -> JSONValue {
        try requireHTTP(url, path: path)
        return ["type": "document", "source": ["type": "url", "url": .string(url)]]
    }

    /// A document from a `data:` URL, or from base64 of a PDF.
    ///
    /// - Parameter name: The file's name, which becomes the document's title.
    static func file(data: String, name: String?, path: String) throws(APIError) -> JSONValue {
        let (type, data) = try dataURL(data, path: path) ?? ("application/pdf", data)
        if imageTypes.contains(type) { return try image(mediaType: type, data: data, path: path) }
        var block = JSONObject([("type", "document")])
        if type == "application/pdf" {
            block["source"] = try pdf(data, path: path)
        } else if type.hasPrefix("text/") || type == "application/json" {
            let bytes = try Base64.decode(data, path: path)
            block["source"] = [
                "type": "text", "media_type": "text/plain", "data": .string(String(decoding: bytes, as: UTF8.self)),
            ]
        } else {
            throw .invalid(path, "`\(path)`: only PDF, text and images can be sent as files, not `\(type.prefix(60))`.")
        }
        if let name, !name.isBlank { block["title"] = .string(name) }
        return .object(block)
    }

    /// The source of a PDF document.
    static func pdf(_ data: String, path: String) throws(APIError) -> JSONValue {
        guard try beginning(ofBase64: data, path: path).starts(with: Array("%PDF".utf8)) else {
            throw .invalid(path, "`\(path)` is not a PDF file.")
        }
        return source("application/pdf", data)
    }

    private static func source(_ mediaType: String, _ data: String) -> JSONValue {
        ["type": "base64", "media_type": .string(mediaType), "data": .string(data)]
    }

    /// Only what the API fetches by itself may be named: no file of the server's.
    static func requireHTTP(_ url: String, path: String) throws(APIError) {
        let lowered = url.prefix(8).lowercased()
        guard lowered.hasPrefix("https://") || lowered.hasPrefix("http://") else {
            throw .invalid(path, "`\(path)` must be an http(s) URL or a `data:` URL with base64.")
        }
    }

    /// Media type and base64 of a `data:` URL; nil for another URL.
    private static func dataURL(_ url: String, path: String) throws(APIError) -> (type: String, data: String)? {
        guard url.prefix(5).lowercased() == "data:" else { return nil }
        guard let comma = url.utf8.firstIndex(of: UInt8(ascii: ",")) else {
            throw .invalid(path, "`\(path)` is a `data:` URL without data.")
        }
        let words = url[url.utf8.index(url.startIndex, offsetBy: 5)..<comma].split(separator: ";")
        guard words.last?.lowercased() == "base64" else {
            throw .invalid(path, "`\(path)` must be a `data:` URL with base64: `data:image/png;base64,…`.")
        }
        let type = words.first.map { $0.lowercased() } ?? ""
        return (type == "image/jpg" ? "image/jpeg" : type, String(url[url.utf8.index(after: comma)...]))
    }

    /// The first bytes of base64, which is checked as a whole.
    private static func beginning(ofBase64 text: String, path: String) throws(APIError) -> [UInt8] {
        guard Base64.isWellFormed(text) else { throw .invalid(path, "`\(path)` is not base64.") }
        return try Base64.decode(String(text.prefix(24)), path: path)
    }

    private static func isImage(_ bytes: [UInt8]) -> Bool {
        let kinds: [[UInt8]] = [
            [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A], [0xFF, 0xD8, 0xFF], Array("GIF87a".utf8),
            Array("GIF89a".utf8),
        ]
        return kinds.contains { bytes.starts(with: $0) }
            || bytes.starts(with: Array("RIFF".utf8)) && bytes.dropFirst(8).starts(with: Array("WEBP".utf8))
    }
}

/// Base64 as RFC 4648 has it, padding optional.
enum Base64 {
    /// Whether a text is base64 and not empty.
    static func isWellFormed(_ text: String) -> Bool {
        var text = Substring(text).utf8
        while text.last == UInt8(ascii: "=") { text.removeLast() }
        return !text.isEmpty && text.count % 4 != 1 && text.allSatisfy { value(of: $0) != nil }
    }

    /// The bytes.
    static func decode(_ text: String, path: String) throws(APIError) -> [UInt8] {
        guard isWellFormed(text) else { throw .invalid(path, "`\(path)` is not base64.") }
        var bytes: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        for byte in text.utf8 {
            guard let value = value(of: byte) else { break }
            bits = bits << 6 | UInt32(value)
            count += 6
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> count))
            }
        }
        return bytes
    }

    /// The text of bytes.
    static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var bits = group.reduce(0 as UInt32) { $0 << 8 | UInt32($1) }
            bits <<= UInt32(8 * (3 - group.count))
            for place in 0..<4 {
                text.append(place <= group.count ? alphabet[Int(bits >> (18 - 6 * place) & 63)] : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    private static func value(of byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte - 65
        case UInt8(ascii: "a")...UInt8(ascii: "z"): byte - 97 + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - 48 + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}
