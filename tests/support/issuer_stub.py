"""A stub of an identity provider: its metadata, its keys, and the tokens that it signs."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import OKPAlgorithm, get_default_algorithms

from tests.support.hunter_stub import MALFORMED_BODIES, HunterStub

OPENID_PATH = "/.well-known/openid-configuration"
OAUTH_PATH = "/.well-known/oauth-authorization-server"
AUDIENCE = "shop"
EDWARDS_KEYS: dict[str, Callable[[], Any]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", *CURVES, *EDWARDS_KEYS)
JWS = jwt.PyJWS()
JWS.register_algorithm("Ed25519", OKPAlgorithm())


def make_private_key(algorithm: str) -> Any:
    """Make a key for an algorithm."""
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm in EDWARDS_KEYS:
        return EDWARDS_KEYS[algorithm]()
    return rsa.generate_private_key(65537, 2048)


def to_jwk(algorithm: str, key: Any) -> dict[str, Any]:
    """Return a private or public key as JWK, without the names of the algorithm and the key."""
    kind = "EdDSA" if algorithm in EDWARDS_KEYS else algorithm
    jwk: dict[str, Any] = get_default_algorithms()[kind].to_jwk(key, as_dict=True)
    return jwk


@dataclass
class IssuerKey:
    """A key of an issuer."""

    algorithm: str
    kid: str | None = "key"
    private: Any = None

    def __post_init__(self) -> None:
        """Make the private key."""
        self.private = self.private or make_private_key(self.algorithm)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as the issuer publishes it."""
        public = to_jwk(self.algorithm, self.private.public_key())
        named = {} if self.kid is None else {"kid": self.kid}
        return {"use": "sig", "alg": self._name} | public | named

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Return a token; None removes a claim or a header."""
        headers = {"typ": "JWT", "kid": self.kid} | header
        present = {name: value for name, value in claims.items() if value is not None}
        named = {name: value for name, value in headers.items() if value is not None}
        if "typ" not in named:
            named["typ"] = None
        payload = json.dumps(present).encode()
        return JWS.encode(payload, self.private, self._name, named)

    @property
    def _name(self) -> str:
        """The name of the algorithm in tokens; that of Ed448 is the old one."""
        return "EdDSA" if self.algorithm == "Ed448" else self.algorithm


@dataclass
class IssuerStub(HunterStub):
    """The server. `fault` is one of EmailHunter's stub; `documents` replaces documents by path."""

    key: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata."""
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    def claims(self, now: datetime, **changed: Any) -> dict[str, Any]:
        """Return valid claims of a new user, with changes."""
        issued_at = int(now.timestamp())
        return {
            "iss": self.url,
            "sub": uuid4().hex,
            "aud": AUDIENCE,
            "iat": issued_at,
            "exp": issued_at + 300,
            "email": f"u{uuid4().hex}@example.com",
            "email_verified": True,
        } | changed

    def _content(self, path: str, email: str, keyword: str, *, clearbit: bool) -> tuple[int, bytes]:
        if keyword in MALFORMED_BODIES:
            return super()._content(path, email, keyword, clearbit=clearbit)
        known = {OPENID_PATH: self.metadata, "/keys": {"keys": self.keys}} | self.documents
        document = known.get(path)
        return (404, b"{}") if document is None else (200, json.dumps(document).encode())


@asynccontextmanager
async def issuer_stub(*keys: IssuerKey) -> AsyncIterator[IssuerStub]:
    """Run an issuer with these keys until the block ends."""
    stub = IssuerStub(keys=[key.jwk for key in keys])
    await stub.start()
    try:
        yield stub
    finally:
        await stub.stop()
