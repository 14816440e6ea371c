"""Every port on one screen: what the core needs of the world, and what it may rely on."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.model import (
    Account,
    Address,
    Allowance,
    Caller,
    Code,
    CodeStatus,
    Joined,
    Referral,
    ReferralStatus,
    RefreshToken,
    Session,
    User,
)


class Clock(Protocol):
    """The time, in UTC."""

    def now(self) -> datetime: ...


class Ids(Protocol):
    """New UUIDv7 ids: a later one sorts after an earlier one."""

    def new(self) -> UUID: ...


class CodeTexts(Protocol):
    """Made-up texts of referral codes, from a CSPRNG."""

    def new(self) -> str: ...


class Secrets(Protocol):
    """Opaque 256-bit tokens, and the digest under which they are stored."""

    def new(self) -> str: ...

    def digest(self, secret: str) -> bytes: ...


class Addresses(Protocol):
    """E-mail addresses out of text; raises `InvalidRequest` for what is none."""

    def parse(self, text: str) -> Address: ...


class Passwords(Protocol):
    """Slow hashes, away from the event loop; raises `Unavailable` when too many wait."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Compare; without a hash it costs the same time and is false."""
        ...


class AccessTokens(Protocol):
    """Signed access tokens (RFC 9068)."""

    @property
    def lifetime(self) -> int:
        """How long a token is good for, in seconds."""
        ...

    def issue(self, subject: str, client_id: str, scope: str) -> str: ...

    def verify(self, token: str) -> Caller:
        """Return who the token speaks for, or raise `Unauthenticated`."""
        ...

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK Set (RFC 7517)."""
        ...


class Users(Protocol):
    """Accounts."""

    async def add(self, user: User) -> None:
        """Store a new account; raises `EmailTaken` when the canonical address has one."""
        ...

    async def get(self, user_id: UUID) -> User | None: ...

    async def by_email(self, email_key: str) -> User | None: ...

    async def lock(self, user_id: UUID) -> User | None:
        """Hold the account's own affairs for this transaction; joining with its code goes on."""
        ...


class Codes(Protocol):
    """Referral codes. A text is found without regard to case, and is never free again."""

    async def add(self, code: Code) -> None:
        """Store a new code; raises `CodeTaken`, or `ActiveCodeExists` when another is enabled."""
        ...

    async def lock(self, user_id: UUID, code_id: UUID) -> Code | None:
        """Hold one code of a user for this transaction, so that no use is counted meanwhile."""
        ...

    async def lock_usable(self, text: str) -> Code | None:
        """Hold the enabled code with this text for this transaction."""
        ...

    async def count_use(self, code_id: UUID, now: datetime) -> bool:
        """Count one use, if the code is active at `now`; tell whether it was."""
        ...

    async def save(self, code: Code) -> None:
        """Store expiry, maximum and enabling of a locked code."""
        ...

    async def delete(self, code_id: UUID, now: datetime) -> None:
        """Take a locked code away for good; its text stays taken."""
        ...

    async def retire(self, user_id: UUID, *, spent_at: datetime | None = None) -> None:
        """Disable the user's enabled code: any, or only one that is spent at that time."""
        ...

    async def get(self, user_id: UUID, code_id: UUID) -> Code | None: ...

    async def active(self, user_id: UUID, now: datetime) -> Code | None: ...

    async def by_text(self, text: str) -> Code | None: ...

    async def newest(
        self,
        user_id: UUID,
        now: datetime,
        *,
        status: CodeStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[Code]: ...


class Referrals(Protocol):
    """Who joined with whose code."""

    async def add(self, referral: Referral) -> None: ...

    async def referrer(self, user_id: UUID) -> User | None:
        """Return whose code the user joined with."""
        ...

    async def count(self, user_id: UUID) -> int:
        """Tell how many joined with the user's codes."""
        ...

    async def newest(
        self, user_id: UUID, *, status: ReferralStatus | None, after: UUID | None, limit: int
    ) -> list[Joined]: ...


class Sessions(Protocol):
    """Logins and their chains of refresh tokens."""

    async def add(self, session: Session) -> None: ...

    async def add_token(self, token: RefreshToken) -> None: ...

    async def lock(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """Hold the session that a refresh token belongs to for this transaction."""
        ...

    async def mark_used(self, digest: bytes, now: datetime) -> None: ...

    async def end(self, session_id: UUID) -> None:
        """End a session: none of its refresh tokens is good any more."""
        ...


class Records(Protocol):
    """All that is stored, within one transaction or one read."""

    @property
    def users(self) -> Users: ...

    @property
    def codes(self) -> Codes: ...

    @property
    def referrals(self) -> Referrals: ...

    @property
    def sessions(self) -> Sessions: ...


class Database(Protocol):
    """Where the records are; raises `Unavailable` when they cannot be reached."""

    def begin(self) -> AbstractAsyncContextManager[Records]:
        """One transaction: committed at the end of the block, undone by an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[Records]:
        """Reads that need no common transaction; each statement sees what is committed."""
        ...


class Reads(Protocol):
    """What is asked most often, each with the least work; raises `Unavailable`."""

    async def code_of(self, email_key: str) -> Code | None:
        """Return the enabled code of whoever has a canonical address; it may be spent."""
        ...

    async def account(self, user_id: UUID, recent: int, now: datetime) -> Account | None:
        """Return an account in full as of `now`, with so many of its newest referrals."""
        ...


class Cache(Protocol):
    """Look-ups by canonical address, remembered for a moment; it never fails, but forgets."""

    async def fetch(
        self, email_key: str, find: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """Return what is remembered, or what `find` finds, which is remembered from then on.

        What was found before a `clear` is not remembered after it.
        """
        ...

    def recall(self, email_key: str) -> Code | None:
        """Return the very object that was last fetched, while this process remembers it."""
        ...

    async def clear(self, email_key: str) -> None:
        """Forget an address: for after the commit of whatever changes its owner's codes."""
        ...


class Limits(Protocol):
    """How often anyone may do something; it never fails, but counts less well."""

    async def take(self, group: str, who: str) -> Allowance | None:
        """Count once more against the limit of the group; None where it has none."""
        ...


class Part(Protocol):
    """A part of the service that can be asked whether it answers."""

    @property
    def name(self) -> str: ...

    async def check(self) -> str:
        """Tell in a word how the part is, or raise `Unavailable`."""
        ...
