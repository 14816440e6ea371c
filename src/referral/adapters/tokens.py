"""Access tokens: RS256, in the shape of RFC 9068, with keys that any service can fetch."""

import hashlib
import json
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm

from referral.core.errors import Unauthenticated
from referral.core.model import Caller, Scope

MIN_BITS = 2048
REMEMBERED = 5_000
"""Of how many tokens a process knows that they were verified: some 5 MB."""

REQUIRED = ["iss", "aud", "sub", "client_id", "scope", "iat", "exp", "jti"]


@dataclass(frozen=True)
class SigningKey:
    """A private key, its public half as a JWK, and the thumbprint that names it (RFC 7638)."""

    private: RSAPrivateKey
    jwk: dict[str, str]

    @property
    def kid(self) -> str:
        """The key's name."""
        return self.jwk["kid"]


class JwtAccessTokens:
    """Tokens of one issuer, which is their audience as well. The first key signs, all verify."""

    def __init__(self, issuer: str, keys: Sequence[SigningKey], minutes: int) -> None:
        """Take who issues, with which keys, and for how long."""
        self.lifetime = minutes * 60
        self._issuer = issuer
        self._signing = keys[0]
        self._keys = {key.kid: key for key in keys}
        self._public = {key.kid: key.private.public_key() for key in keys}
        self._verified: dict[str, tuple[float, Caller]] = {}

    def issue(self, subject: str, client_id: str, scope: str) -> str:
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
        key = self._signing
        return jwt.encode(claims, key.private, "RS256", {"typ": "at+jwt", "kid": key.kid})

    def verify(self, token: str) -> Caller:
        """See the port. What was verified is, until it expires, not verified anew."""
        expires, caller = self._verified.get(token, (0.0, None))
        if caller is not None and expires > time.time():
            return caller
        return self._verify(token)

    def _verify(self, token: str) -> Caller:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") not in {"at+jwt", "application/at+jwt"}:
                raise Unauthenticated
            claims = self._claims(token, self._public[header["kid"]])
            caller = _caller(claims)
            self._remember(token, float(str(claims["exp"])), caller)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            detail = "The access token is not valid or has expired. Log in again."
            raise Unauthenticated(detail) from error
        return caller

    def _remember(self, token: str, expires: float, caller: Caller) -> None:
        while len(self._verified) >= REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = (expires, caller)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """See the port."""
        return {"keys": [key.jwk for key in self._keys.values()]}

    def _claims(self, token: str, key: object) -> dict[str, object]:
        return jwt.decode(
            token,
            key,  # type: ignore[arg-type]
            algorithms=["RS256"],
            audience=self._issuer,
            issuer=self._issuer,
            options={"require": REQUIRED},
        )


def _caller(claims: dict[str, object]) -> Caller:
    scopes = frozenset(str(claims["scope"]).split())
    is_user = Scope.ACCOUNT in scopes
    return Caller(
        client_id=str(claims["client_id"]),
        scopes=scopes,
        user_id=UUID(str(claims["sub"])) if is_user else None,
    )


def load_key(pem: bytes) -> SigningKey:
    """Read an RSA key of at least 2,048 bits; raises `ValueError` with what is wrong."""
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        fault = "is no unencrypted private key in PEM form"
        raise ValueError(fault) from error
    if not isinstance(private, RSAPrivateKey) or private.key_size < MIN_BITS:
        fault = f"is no RSA key of {MIN_BITS} bits or more"
        raise ValueError(fault)
    public: dict[str, str] = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    named = {name: public[name] for name in ("e", "kty", "n")}
    digest = hashlib.sha256(json.dumps(named, separators=(",", ":")).encode()).digest()
    kid = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return SigningKey(private, {**named, "kid": kid, "use": "sig", "alg": "RS256"})


def make_key_file(path: Path) -> None:
    """Make a key where there is none yet; of two who try at once, one wins for both."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = generate_private_key(public_exponent=65537, key_size=MIN_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_suffix(f".{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_bytes(pem)
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
