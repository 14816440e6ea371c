"""Forged access tokens, each with one defect."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.api_client import log_in, new_email, register


def encode(value: bytes | dict[str, Any]) -> str:
    """Encode a part of a token: base64url without padding."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    """Decode a part of a token."""
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


class TokenForger:
    """Makes tokens with one defect, signed with the service's own key unless stated otherwise."""

    def __init__(self, key: RSAPrivateKey, token: str) -> None:
        """Start from the signing key and a valid token."""
        self.key, self.token = key, token
        head, payload, _ = token.split(".")
        self.header: dict[str, Any] = json.loads(decode(head))
        self.claims: dict[str, Any] = json.loads(decode(payload))

    def signed(self, key: RSAPrivateKey | None = None) -> str:
        """Sign the current header and claims."""
        text = f"{encode(self.header)}.{encode(self.claims)}"
        signature = (key or self.key).sign(text.encode(), PKCS1v15(), SHA256())
        return f"{text}.{encode(signature)}"

    def with_header(self, **values: Any) -> str:
        """Sign with changed header values; None removes a value."""
        self.header = _changed(self.header, values)
        return self.signed()

    def with_claims(self, **values: Any) -> str:
        """Sign changed claims; None removes a claim."""
        self.claims = _changed(self.claims, values)
        return self.signed()

    def with_hmac(self) -> str:
        """Sign by HS256 with the public key as the secret."""
        self.header["alg"] = "HS256"
        text = f"{encode(self.header)}.{encode(self.claims)}"
        public = self.key.public_key()
        hmac = HMAC(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), SHA256())
        hmac.update(text.encode())
        return f"{text}.{encode(hmac.finalize())}"

    def with_embedded_key(self, **values: Any) -> str:
        """Sign with another key that the header embeds."""
        own = generate_private_key(65537, 2048)
        numbers = own.public_key().public_numbers()
        modulus = encode(numbers.n.to_bytes(256, "big"))
        self.header |= {"jwk": {"kty": "RSA", "n": modulus, "e": "AQAB"}} | values
        return self.signed(own)

    def with_payload(self, payload: bytes) -> str:
        """Sign a payload that may be no JSON object."""
        text = f"{encode(self.header)}.{encode(payload)}"
        return f"{text}.{encode(self.key.sign(text.encode(), PKCS1v15(), SHA256()))}"

    def with_parts(self, change: Callable[[list[str]], list[str]]) -> str:
        """Rearrange the parts of the valid token."""
        return ".".join(change(self.token.split(".")))


def _changed(current: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (current | values).items() if value is not None}


async def log_in_new_user(client: httpx.AsyncClient) -> dict[str, Any]:
    """Register a user and return the tokens."""
    email = new_email()
    await register(client, email)
    tokens: dict[str, Any] = (await log_in(client, email)).json()
    return tokens
