"""Subject tokens: what a client exchanges for an access token of a user (RFC 8693)."""

from dataclasses import dataclass
from enum import StrEnum

TOKEN_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name


class SubjectTokenType(StrEnum):
    """The types of subject tokens; the first three are JWTs of a trusted issuer."""

    JWT = "urn:ietf:params:oauth:token-type:jwt"
    ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a name
    ACCESS_TOKEN = ACCESS_TOKEN_TYPE
    USER_ID = "urn:referral:token-type:user-id"
    EXTERNAL_ID = "urn:referral:token-type:external-id"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of a trusted issuer. `email` is set only if the issuer has confirmed it."""

    issuer: str
    subject: str
    email: str | None

    @property
    def external_id(self) -> str:
        """The external id of the user's account."""
        return f"{self.issuer}|{self.subject}"
