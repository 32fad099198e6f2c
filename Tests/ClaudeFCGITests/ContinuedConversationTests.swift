import Dialects
import Testing

@testable import ClaudeFCGI

@Suite struct ContinuedConversationTests {
    private static func text(_ role: RunRequest.Role, _ text: String) -> RunRequest.Turn {
        RunRequest.Turn(role: role, blocks: [RunRequest.Turn.text(text)])
    }

    private static func request(_ turns: [RunRequest.Turn]) -> RunRequest { RunRequest(system: ["A"], turns: turns) }

    private static func continued(_ request: RunRequest, client: String = "c") -> ContinuedConversation {
        ContinuedConversation(request, model: ResolvedModel(name: "m", fullID: nil), client: client)
    }

    private static func answer(_ text: String) -> Answer {
        var answer = Answer()
        answer.append(.blockStarted(.text))
        answer.append(.text(text))
        return answer
    }

    @Test func `a conversation that begins continues none`() {
        #expect(Self.continued(Self.request([Self.text(.user, "1")])).hash == nil)
        #expect(Self.continued(Self.request([Self.text(.user, "1"), Self.text(.assistant, "2")])).hash == nil)
    }

    @Test(arguments: [1, 3, 7]) func `an answer's name is what the next request goes on with`(_ count: Int) {
        let turns = (0..<count).map { Self.text($0.isMultiple(of: 2) ? .user : .assistant, "\($0)") }
        let name = Self.continued(Self.request(turns)).hash(with: Self.answer("yes"))
        let told = turns + [Self.text(.assistant, "yes"), Self.text(.user, "and?")]
        #expect(Self.continued(Self.request(told)).hash == name)
        #expect(Self.continued(Self.request(told), client: "d").hash != name)
        for index in told.indices.dropLast() {
            var other = told
            other[index].blocks = [RunRequest.Turn.text("other")]
            #expect(Self.continued(Self.request(other)).hash != name)
        }
    }

    @Test func `an answer that goes on with the caller's beginning is one turn with it`() {
        let begun = [Self.text(.user, "1"), Self.text(.assistant, "2")]
        let name = Self.continued(Self.request(begun)).hash(with: Self.answer("3"))
        var whole = begun
        whole[1].blocks.append(RunRequest.Turn.text("3"))
        #expect(Self.continued(Self.request(whole + [Self.text(.user, "4")])).hash == name)
    }
}
