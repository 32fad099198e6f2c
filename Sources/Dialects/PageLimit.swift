/// How many entries a page of a list has at most, as a query says it.
public enum PageLimit {
    /// From the value of `limit`.
    ///
    /// - Throws: ``APIError`` naming the parameter.
    public static func read(_ value: String, upTo most: Int) throws(APIError) -> Int {
        guard let number = Int(value), (1...most).contains(number) else {
            throw .invalid("limit", "`limit` must be a whole number from 1 to \(most).")
        }
        return number
    }
}
