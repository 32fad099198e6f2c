import Dialects
import Sessions
import Testing

@Suite struct StoredResponsesTests {
    /// The store and the API don't know each other: a state goes from one to the other by its name.
    @Test func `the store and the API have the same states by the same names`() {
        #expect(
            Set(StoredResponse.State.allCases.map(\.rawValue)) == Set(ResponsesStatus.allCases.map(\.rawValue)))
    }
}
