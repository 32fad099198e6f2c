/// Reads what a message or a tool's result says: a text, or an array of parts with text, images and files.
///
/// The vendor's two APIs name the same parts differently, and nest what is in them differently.
struct ContentParts: Sendable {
    /// The parts of a chat completion's message.
    static let chat = ContentParts(texts: ["text", "refusal"], media: ["image_url", "file"])
    /// The parts of a response's item.
    static let responses = ContentParts(
        texts: ["input_text", "output_text", "refusal"], media: ["input_image", "input_file"])

    private let texts: Set<String>
    private let media: Set<String>

    /// The blocks of a field that holds a text or an array of parts; blank text is left out, because the API refuses it.
    ///
    /// - Throws: ``APIError`` naming the part's field.
    func blocks(_ fields: FieldReader, _ key: String = "content") throws(APIError) -> [JSONValue] {
        try blocks(fields, key, kinds: texts.union(media))
    }

    /// The blocks of a message that must say something.
    ///
    /// - Throws: ``APIError`` naming the part's field.
    func saidBlocks(_ fields: FieldReader) throws(APIError) -> [JSONValue] {
        let blocks = try blocks(fields)
        let path = fields.path("content")
        guard !blocks.isEmpty else {
            throw .invalid(path, "`\(path)` has no text. Send some, or leave the message out.")
        }
        return blocks
    }

    /// The texts of a field that holds no images and files.
    ///
    /// - Throws: ``APIError`` naming the part's field.
    func texts(_ fields: FieldReader, _ key: String = "content") throws(APIError) -> [String] {
        try blocks(fields, key, kinds: texts).compactMap { $0["text"]?.stringValue }
    }

    private func blocks(_ fields: FieldReader, _ key: String, kinds: Set<String>) throws(APIError) -> [JSONValue] {
        let path = fields.path(key)
        guard let content = fields.value(key) else { return [] }
        if let text = content.stringValue { return text.isBlank ? [] : [RunRequest.Turn.text(text)] }
        guard let parts = content.arrayValue else {
            throw .invalid(path, "`\(path)` must be a string or an array of parts, not \(content.kindDescription).")
        }
        var blocks: [JSONValue] = []
        for (index, part) in parts.enumerated() {
            let part = try FieldReader(part, path: "\(path)[\(index)]")
            _ = try part.required("type")
            let kind = try part.string("type") ?? ""
            guard kinds.contains(kind) else {
                throw .invalid(
                    part.path("type"),
                    "`\(part.path("type"))` must be one of \(kinds.sorted().joined(separator: ", ")) here.")
            }
            if let block = try Self.block(part, kind: kind) { blocks.append(block) }
        }
        return blocks
    }

    private static func block(_ part: FieldReader, kind: String) throws(APIError) -> JSONValue? {
        switch kind {
        case "image_url":
            let value = try part.required("image_url")
            // Some clients send the URL alone.
            if let url = value.stringValue { return try MediaBlocks.image(url: url, path: part.path("image_url")) }
            let image = try FieldReader(value, path: part.path("image_url"))
            _ = try image.required("url")
            return try MediaBlocks.image(url: try image.string("url") ?? "", path: image.path("url"))
        case "input_image":
            guard let url = try part.string("image_url") else { throw unkept(part, instead: "image_url") }
            return try MediaBlocks.image(url: url, path: part.path("image_url"))
        case "file":
            let file = try FieldReader(try part.required("file"), path: part.path("file"))
            guard let block = try fileBlock(file) else { throw unkept(file, instead: "file_data") }
            return block
        case "input_file":
            if let block = try fileBlock(part) { return block }
            guard let url = try part.string("file_url") else { throw unkept(part, instead: "file_data") }
            return try MediaBlocks.document(url: url, path: part.path("file_url"))
        default:
            let key = kind == "refusal" ? "refusal" : "text"
            _ = try part.required(key)
            let text = try part.string(key) ?? ""
            if text.isBlank { return nil }
            return RunRequest.Turn.text(text)
        }
    }

    private static func fileBlock(_ file: FieldReader) throws(APIError) -> JSONValue? {
        guard let data = try file.string("file_data") else { return nil }
        return try MediaBlocks.file(data: data, name: try file.string("filename"), path: file.path("file_data"))
    }

    /// A part without data: it names a file of the vendor's, or nothing at all.
    private static func unkept(_ part: FieldReader, instead key: String) -> APIError {
        guard part.value("file_id") != nil else {
            return .invalid(part.path(key), "`\(part.path(key))` is missing.")
        }
        return .invalid(
            part.path("file_id"),
            "`\(part.path("file_id"))`: files are not kept here. Send the data itself as `\(part.path(key))`.")
    }
}
