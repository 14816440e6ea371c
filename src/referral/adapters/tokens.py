"""Access tokens: RS256, in the shape of RFC 9068, with keys that any service can fetch."""

import time
from uuid import UUID, uuid4

import jwt

from referral.adapters.keys import KeyRing, SigningKey
from referral.core.errors import Unauthenticated
from referral.core.model import AccessToken, Caller, Scope

REMEMBERED = 5_000
"""Of how many tokens a process knows that they were verified: some 5 MB."""

REQUIRED = ["iss", "aud", "sub", "client_id", "scope", "iat", "exp", "jti"]

TEXTS = ["iss", "aud", "sub", "client_id", "scope", "jti"]


class JwtAccessTokens:
    """Tokens of one issuer, which is their audience as well. The first key signs, all verify."""

    def __init__(self, issuer: str, ring: KeyRing, minutes: int) -> None:
        """Take who issues, with which keys, and for how long."""
        self.lifetime = minutes * 60
        self._issuer = issuer
        self._ring = ring
        self._verified: dict[str, tuple[tuple[SigningKey, ...], AccessToken]] = {}

    def issue(
        self, subject: str, client_id: str, scope: str, session_id: UUID | None = None
    ) -> str:
        """See the port."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": subject,
            "client_id": client_id,
            "scope": scope,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(uuid4()),
        }
        if session_id is not None:
            claims["sid"] = str(session_id)
        key = self._ring.all()[0]
        return jwt.encode(claims, key.private, "RS256", {"typ": "at+jwt", "kid": key.kid})

    def verify(self, token: str) -> AccessToken:
        """See the port. What was verified is not verified anew while the keys are the same."""
        keys, verified = self._verified.get(token, ((), None))
        if verified and keys is self._ring.all() and verified.expires_at > time.time():
            return verified
        return self._verify(token)

    def _verify(self, token: str) -> AccessToken:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") not in {"at+jwt", "application/at+jwt"}:
                raise Unauthenticated
            verified = _access_token(self._claims(token, self._ring.find(header["kid"])))
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            detail = "The access token is not valid or has expired. Log in again."
            raise Unauthenticated(detail) from error
        self._remember(token, verified)
        return verified

    def _remember(self, token: str, verified: AccessToken) -> None:
        while len(self._verified) >= REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = (self._ring.all(), verified)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """See the port."""
        return {"keys": [key.jwk for key in self._ring.all()]}

    def _claims(self, token: str, key: SigningKey) -> dict[str, str]:
        claims = jwt.decode(
            token,
            key.public,
            algorithms=["RS256"],
            audience=self._issuer,
            issuer=self._issuer,
            options={"require": REQUIRED},
        )
        if not all(isinstance(claims[name], str) for name in TEXTS):
            raise Unauthenticated
        return claims


def _access_token(claims: dict[str, str]) -> AccessToken:
    scopes = frozenset(claims["scope"].split())
    is_user, session_id = Scope.ACCOUNT in scopes, claims.get("sid")
    caller = Caller(
        client_id=claims["client_id"],
        scopes=scopes,
        user_id=UUID(claims["sub"]) if is_user else None,
        session_id=UUID(session_id) if session_id else None,
    )
    return AccessToken(
        id=claims["jti"],
        subject=claims["sub"],
        caller=caller,
        issued_at=int(claims["iat"]),
        expires_at=int(claims["exp"]),
    )
