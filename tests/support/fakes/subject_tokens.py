"""The fake of the verification of subject tokens."""

from referral.core.entities.subject_tokens import Identity, SubjectTokenType
from referral.core.errors import InvalidSubjectToken


class FakeSubjectTokenVerifier:
    """Accepts the tokens of a dict, as any type."""

    def __init__(self) -> None:
        self.identities: dict[str, Identity] = {}

    async def verify(self, token: str, token_type: SubjectTokenType) -> Identity:  # noqa: ARG002
        if token not in self.identities:
            raise InvalidSubjectToken
        return self.identities[token]
