"""Subject tokens of trusted issuers, and the keys that verify them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from referral.core.entities.subject_tokens import Identity, SubjectTokenType


class SubjectTokenVerifier(Protocol):
    """Verifies JWTs of trusted issuers."""

    async def verify(self, token: str, token_type: SubjectTokenType) -> Identity:
        """Return the user of a valid token.

        Raises `InvalidSubjectToken`, or `Unavailable` while the issuer's keys cannot be had.
        """
        ...


class IssuerKeys(Protocol):
    """The public keys of trusted issuers."""

    async def find(self, issuer: str, kid: str | None) -> Sequence[Mapping[str, object]]:
        """Return the issuer's JWKs with this id, or all of them without an id.

        Raises `Unavailable` if the keys cannot be had.
        """
        ...
