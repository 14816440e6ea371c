"""JWT access tokens (RFC 9068), signed with RS256; any service can verify them with the JWKS."""

from typing import Annotated
from uuid import UUID, uuid4

import jwt
import msgspec

from referral.adapters.security.keys import KeyRing, SigningKey
from referral.core.entities.clients import AccessTokenClaims, Caller, Scope
from referral.core.errors import Unauthenticated
from referral.core.ports.system import Clock

VERIFIED_CACHE_SIZE = 5_000
"""The number of verified tokens that a process caches, about 5 MB."""

MAX_TOKEN_CHARACTERS = 4096
"""Longer tokens are rejected unparsed; the tokens of this service have about 900 characters."""

JWS = jwt.PyJWS(algorithms=["RS256"])

NumericDate = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class ActingParty(msgspec.Struct, frozen=True):
    """The claim `act`: the client that acts for the user (RFC 8693, section 4.1)."""

    sub: str


class Claims(msgspec.Struct, frozen=True):
    """The claims of a token (RFC 9068, section 2.2); `sid` is the id of the user's session."""

    iss: str
    aud: str
    sub: str
    client_id: str
    scope: str
    iat: NumericDate
    exp: NumericDate
    jti: str
    nbf: NumericDate = 0
    sid: UUID | msgspec.UnsetType = msgspec.UNSET
    act: ActingParty | msgspec.UnsetType = msgspec.UNSET


class JwtAccessTokenIssuer:
    """Tokens whose audience is their issuer. The first key signs, all keys verify."""

    def __init__(self, issuer: str, key_ring: KeyRing, lifetime_minutes: int, clock: Clock) -> None:
        """`issuer` is the service's public URL."""
        self.lifetime_seconds = lifetime_minutes * 60
        self._issuer = issuer
        self._key_ring = key_ring
        self._clock = clock
        self._verified: dict[str, tuple[tuple[SigningKey, ...], AccessTokenClaims]] = {}

    def issue(
        self,
        subject: str,
        client_id: str,
        scope: str,
        session_id: UUID | None = None,
        *,
        acting_client: str | None = None,
    ) -> str:
        """Return a signed token; only a user's token has a session or an acting client."""
        now = int(self._now())
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": subject,
            "client_id": client_id,
            "scope": scope,
            "iat": now,
            "exp": now + self.lifetime_seconds,
            "jti": str(uuid4()),
        }
        if session_id is not None:
            claims["sid"] = str(session_id)
        if acting_client is not None:
            claims["act"] = {"sub": acting_client}
        key = self._key_ring.all()[0]
        return jwt.encode(claims, key.private, "RS256", {"typ": "at+jwt", "kid": key.kid})

    def verify(self, token: str) -> AccessTokenClaims:
        """Return the verified token, from the cache until it expires or the keys change."""
        keys, verified = self._verified.get(token, ((), None))
        if verified and keys is self._key_ring.all() and verified.expires_at > self._now():
            return verified
        return self._verify_uncached(token)

    def _verify_uncached(self, token: str) -> AccessTokenClaims:
        try:
            verified = _access_token(self._decode(token))
        except (jwt.PyJWTError, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            detail = "The access token is not valid or has expired. Log in again."
            raise Unauthenticated(detail) from error
        self._cache(token, verified)
        return verified

    def _cache(self, token: str, verified: AccessTokenClaims) -> None:
        while len(self._verified) >= VERIFIED_CACHE_SIZE:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = (self._key_ring.all(), verified)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK Set (RFC 7517)."""
        return {"keys": [key.jwk for key in self._key_ring.all()]}

    def _decode(self, token: str) -> Claims:
        """Return the claims of a valid token; raises errors of PyJWT, msgspec and Python."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthenticated
        header = jwt.get_unverified_header(token)
        if header.get("typ") not in {"at+jwt", "application/at+jwt"}:
            raise Unauthenticated
        key = self._key_ring.get(header["kid"])
        payload = JWS.decode(token, key.public, algorithms=["RS256"])
        claims = msgspec.json.decode(payload, type=Claims)
        is_ours = claims.iss == claims.aud == self._issuer
        if not is_ours or not max(claims.iat, claims.nbf) <= self._now() < claims.exp:
            raise Unauthenticated
        return claims

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _access_token(claims: Claims) -> AccessTokenClaims:
    scopes = frozenset(claims.scope.split())
    caller = Caller(
        client_id=claims.client_id,
        scopes=scopes,
        user_id=UUID(claims.sub) if Scope.ACCOUNT in scopes else None,
        session_id=claims.sid or None,
        acting_client=claims.act.sub if claims.act else None,
    )
    return AccessTokenClaims(claims.jti, claims.sub, caller, claims.iat, claims.exp)
