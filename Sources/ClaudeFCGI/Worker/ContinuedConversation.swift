import Admission
import Crypto
import Dialects

/// A request and the conversation that it continues.
///
/// The conversation's name covers all that the model knows, so it costs as much as the history is long. It is worked out once:
/// to find the process, in whichever responder that is, and with two turns more it is the name that the process is kept as.
struct ContinuedConversation {
    /// The request, with its whole history.
    let request: RunRequest
    /// The conversation's name; nil where the request begins one, or no process could go on with it.
    let hash: LiveHash?
    /// Of the parameters, and of the turns before the new one where there is a ``hash``.
    private let digest: SHA256
    private let count: Int

    init(_ request: RunRequest, model: ResolvedModel, client: String) {
        self.request = request
        var digest = SHA256()
        digest.update(data: ConversationKey.parameters(of: request, model: model.name, client: client))
        let history = request.liveSplit?.history
        for turn in history ?? [] { digest.update(data: ConversationKey.bytes(of: turn)) }
        hash = history.map { _ in LiveHash(digest: digest.finalize()) }
        count = history?.count ?? 0
        self.digest = digest
    }

    /// The name of the conversation with the request's turn and its answer.
    func hash(with answer: Answer) -> LiveHash {
        var digest = digest
        for turn in request.turns(with: answer)[count...] { digest.update(data: ConversationKey.bytes(of: turn)) }
        return LiveHash(digest: digest.finalize())
    }
}
