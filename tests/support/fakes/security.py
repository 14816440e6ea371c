"""Fakes of password hashing, fingerprints and tokens."""

import asyncio
import hashlib
from uuid import UUID

from referral.core.entities.clients import AccessTokenClaims, Caller, Scope
from referral.core.errors import InvalidRequest, NotFound, Unauthenticated


class FakeTokenGenerator:
    """Sequential tokens with the real digest."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"secret-{self._count}"

    def new_key(self) -> bytes:
        return self.new().encode().ljust(32, b".")

    def digest(self, secret: str) -> bytes:
        return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


class FakeFingerprinter:
    """Digests under keys that a test may change, newest first."""

    def __init__(self) -> None:
        self.keys = [b"key"]

    def compute(self, data: bytes) -> tuple[bytes, ...]:
        return tuple(hashlib.sha256(key + data).digest() for key in self.keys)


class FakeSecretCipher:
    """Secrets beside the key and the context; a test may change the keys, newest first."""

    def __init__(self) -> None:
        self.keys = [b"key"]

    def encrypt(self, secret: bytes, context: bytes) -> bytes:
        return b"|".join((self.keys[0], context.hex().encode(), secret))

    def decrypt(self, encrypted: bytes, context: bytes) -> bytes | None:
        key, stored_context, secret = encrypted.split(b"|", 2)
        return secret if key in self.keys and stored_context == context.hex().encode() else None

    def reencrypt(self, encrypted: bytes, context: bytes) -> bytes | None:
        secret = self.decrypt(encrypted, context)
        if secret is None or encrypted.startswith(self.keys[0]):
            return None
        return self.encrypt(secret, context)


class FakePasswordHasher:
    """Fast hashes.

    `hash_count` counts them, `verified_hashes` and `costliest_hashes` record the arguments of
    `verify`, `outdated_hashes` need a rehash, and `error` makes `hash` fail.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.verified_hashes: list[str | None] = []
        self.costliest_hashes: list[str | None] = []
        self.outdated_hashes: set[str] = set()
        self.hash_count = 0

    async def hash(self, password: str) -> str:
        # Other tasks run here, as they do while the threads hash.
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.hash_count += 1
        return f"{self.hash_count}:{_sha256(password)}"

    def needs_rehash(self, password_hash: str) -> bool:
        return password_hash in self.outdated_hashes

    def cost(self, password_hash: str) -> int | None:
        """`imported:20:…` takes 20 ms; a hash without a colon is invalid."""
        if ":" not in password_hash:
            raise InvalidRequest("The hash is invalid.", field="password_hash")
        kind, cost, *_ = password_hash.split(":")
        return int(cost) if kind == "imported" else None

    async def verify(
        self, password: str, password_hash: str | None, costliest_hash: str | None = None
    ) -> bool:
        # Here too.
        await asyncio.sleep(0)
        self.verified_hashes.append(password_hash)
        self.costliest_hashes.append(costliest_hash)
        return password_hash is not None and password_hash.partition(":")[2] == _sha256(password)


class FakeAccessTokenIssuer:
    """Opaque tokens with their claims in a dict."""

    lifetime_seconds = 600

    def __init__(self) -> None:
        self._tokens: dict[str, AccessTokenClaims] = {}

    def issue(
        self,
        subject: str,
        client_id: str,
        scope: str,
        session_id: UUID | None = None,
        *,
        acting_client: str | None = None,
    ) -> str:
        token = f"access-{len(self._tokens) + 1}"
        scopes = frozenset(scope.split())
        user_id = UUID(subject) if Scope.ACCOUNT in scopes else None
        caller = Caller(client_id, scopes, user_id, session_id, acting_client)
        self._tokens[token] = AccessTokenClaims(token, subject, caller, 0, self.lifetime_seconds)
        return token

    def verify(self, token: str) -> AccessTokenClaims:
        if token not in self._tokens:
            raise Unauthenticated
        return self._tokens[token]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": [{"kid": "a key"}]}


class FakeUnsubscribeTokens:
    """Unsigned tokens that hold the user id."""

    def sign(self, user_id: UUID) -> str:
        return f"unsubscribe-{user_id}"

    def verify(self, token: str) -> UUID:
        try:
            return UUID(token.removeprefix("unsubscribe-"))
        except ValueError as error:
            raise NotFound from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
