"""Verification of JWTs of trusted issuers (RFC 7519, RFC 8725)."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import OKPAlgorithm

from referral.core.entities.subject_tokens import Identity, SubjectTokenType
from referral.core.errors import InvalidSubjectToken
from referral.core.ports.subject_tokens import IssuerKeys
from referral.core.ports.system import Clock

MAX_SUBJECT_TOKEN_CHARACTERS = 16_384
"""Longer tokens are rejected unparsed; those with many groups have some thousand characters."""

CLOCK_SKEW_SECONDS = 5
"""How far `iat` and `nbf` may be ahead of this clock; `exp` counts to the second."""

MAX_CANDIDATE_KEYS = 3
"""The keys that are tried for one token; a key id should name one."""

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVE_ALGORITHMS = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),
    "Ed448": frozenset({"EdDSA"}),
}
CURVES_BY_TYPE = {"EC": {"P-256", "P-384", "P-521"}, "OKP": {"Ed25519", "Ed448"}}
ALGORITHMS = RSA_ALGORITHMS.union(*CURVE_ALGORITHMS.values())
RSA_KEY_BITS = range(2048, 8192 + 1)
PUBLIC_MEMBERS = {"kty", "n", "e", "crv", "x", "y"}
"""A private part of a key that an issuer publishes by mistake is ignored."""

JWS = jwt.PyJWS(algorithms=sorted(ALGORITHMS))
JWS.register_algorithm("Ed25519", OKPAlgorithm())
"""PyJWT knows the older name, EdDSA, only; RFC 9864 names the curve."""

PLAIN_TYPES = {None, "jwt"}
HEADER_TYPES = {
    SubjectTokenType.JWT: PLAIN_TYPES | {"at+jwt"},
    SubjectTokenType.ID_TOKEN: PLAIN_TYPES,
    SubjectTokenType.ACCESS_TOKEN: PLAIN_TYPES | {"at+jwt"},
}
"""Values of the header `typ`; logout tokens, security events and others have types of their own."""

PAYLOAD_TYPES = {
    SubjectTokenType.JWT: {None, "id", "bearer", "jwt"},
    SubjectTokenType.ID_TOKEN: {None, "id", "jwt"},
    SubjectTokenType.ACCESS_TOKEN: {None, "bearer", "jwt"},
}
"""Values of Keycloak's claim `typ`; its refresh and logout tokens have others."""


NumericDate = Annotated[float, msgspec.Meta(ge=0, le=2**53)]


class SubjectClaims(msgspec.Struct, frozen=True):
    """The claims that matter here; a token may have more."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: NumericDate
    iat: NumericDate = 0
    nbf: NumericDate = 0
    email: object = None
    email_verified: object = None
    typ: str | None = None
    events: object = None


class JwtSubjectTokenVerifier:
    """Verifies tokens of the trusted issuers for one audience."""

    def __init__(
        self,
        issuers: Sequence[str],
        audience: str,
        issuer_keys: IssuerKeys | None,
        clock: Clock,
    ) -> None:
        """Without issuers every token is invalid, and `issuer_keys` is None."""
        self._issuers = frozenset(issuers)
        self._audience = audience
        self._issuer_keys = issuer_keys
        self._clock = clock

    async def verify(self, token: str, token_type: SubjectTokenType) -> Identity:
        if len(token) > MAX_SUBJECT_TOKEN_CHARACTERS:
            detail = f"Send a subject token of at most {MAX_SUBJECT_TOKEN_CHARACTERS:,} characters."
            raise InvalidSubjectToken(detail)
        try:
            header, claims = _parse(token)
            # Before any request to the issuer: forged tokens cost none.
            algorithm, kid = _check_header(header, token_type)
            self._check_claims(claims, token_type)
            await self._check_signature(token, claims.iss, algorithm, kid)
        except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidSubjectToken("The subject token is no valid JWT.") from error
        confirmed = claims.email_verified is True and isinstance(claims.email, str)
        return Identity(claims.iss, claims.sub, str(claims.email) if confirmed else None)

    def _check_claims(self, claims: SubjectClaims, token_type: SubjectTokenType) -> None:
        if claims.iss not in self._issuers:
            raise InvalidSubjectToken("The issuer of the subject token is not trusted.")
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if self._audience not in audiences:
            raise InvalidSubjectToken(f"The subject token is not for '{self._audience}' ('aud').")
        payload_type = claims.typ and claims.typ.lower()
        if payload_type not in PAYLOAD_TYPES[token_type] or claims.events is not None:
            raise InvalidSubjectToken("The subject token is of another type than it is sent as.")
        now = self._clock.now().timestamp()
        if claims.exp <= now:
            raise InvalidSubjectToken("The subject token has expired. Send a new one.")
        if max(claims.iat, claims.nbf) > now + CLOCK_SKEW_SECONDS:
            raise InvalidSubjectToken("The subject token is not valid yet ('iat', 'nbf').")
        if not claims.sub:
            raise InvalidSubjectToken("The 'sub' of the subject token is empty.")

    async def _check_signature(
        self, token: str, issuer: str, algorithm: str, kid: str | None
    ) -> None:
        if self._issuer_keys is None:
            raise InvalidSubjectToken
        known = await self._issuer_keys.find(issuer, kid)
        candidates = [key for key in known if _fits(key, algorithm)]
        if kid is None and len(candidates) > 1:
            raise InvalidSubjectToken("The subject token must name its key ('kid').")
        for candidate in candidates[:MAX_CANDIDATE_KEYS]:
            if _verifies(token, candidate, algorithm):
                return
        raise InvalidSubjectToken("The signature of the subject token is not valid.")


def _parse(token: str) -> tuple[Mapping[str, object], SubjectClaims]:
    """Decode a token without trusting it. PyJWT accepts padding, RFC 7515 does not."""
    if "=" in token:
        raise ValueError("padding")
    decoded = JWS.decode_complete(token, options={"verify_signature": False})
    return decoded["header"], msgspec.json.decode(decoded["payload"], type=SubjectClaims)


def _check_header(
    header: Mapping[str, object], token_type: SubjectTokenType
) -> tuple[str, str | None]:
    """Return the algorithm and the key id; raises `InvalidSubjectToken`."""
    kind, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
    kind = kind.lower().removeprefix("application/") if isinstance(kind, str) else kind
    if not (kind is None or isinstance(kind, str)) or kind not in HEADER_TYPES[token_type]:
        raise InvalidSubjectToken("The subject token is of another type than it is sent as.")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InvalidSubjectToken("The subject token must be signed by RS, PS, ES or EdDSA.")
    if not (kid is None or isinstance(kid, str)) or "crit" in header:
        raise InvalidSubjectToken("The header of the subject token is not valid.")
    return algorithm, kid


def _fits(key: Mapping[str, object], algorithm: str) -> bool:
    """Return whether a JWK is for this algorithm; never a symmetric key."""
    kind, curve = key.get("kty"), key.get("crv")
    allowed: frozenset[str] = frozenset()
    if kind == "RSA":
        allowed = RSA_ALGORITHMS
    elif isinstance(kind, str) and isinstance(curve, str) and curve in CURVES_BY_TYPE.get(kind, ()):
        allowed = CURVE_ALGORITHMS[curve]
    operations = key.get("key_ops", ["verify"])
    return (
        algorithm in allowed
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _verifies(token: str, key: Mapping[str, object], algorithm: str) -> bool:
    try:
        public = {name: key[name] for name in PUBLIC_MEMBERS & key.keys()}
        jwk = jwt.PyJWK(public, "EdDSA" if algorithm == "Ed25519" else algorithm)
        if isinstance(jwk.key, RSAPublicKey) and jwk.key.key_size not in RSA_KEY_BITS:
            return False
        JWS.decode(token, jwk.key, algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return False
    return True
