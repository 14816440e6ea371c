"""Every port on one screen: what the core needs of the world, and what it may rely on."""

from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from referral.core.jobs import Job, Run
from referral.core.model import (
    Address,
    Caller,
    Code,
    CodeStatus,
    Joined,
    Locale,
    Mail,
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

    async def update(self, user_id: UUID, locale: Locale, *, notify: bool) -> None:
        """Store the language of mails, and whether new referrals are told."""
        ...

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

    async def active_by_email(self, email_key: str, now: datetime) -> Code | None: ...

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

    async def claim(self, referral_id: UUID, mail: UUID, *, with_others: bool) -> User | None:
        """Have one mail tell of a referral, and if asked of all the referrer's that no mail tells
        of; return the referrer, or None when another mail tells of it already.
        """
        ...

    async def claimed(self, referrer_id: UUID, mail: UUID) -> list[Joined]:
        """Return the referrals that a mail tells of, the oldest first."""
        ...


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

    async def prune(self, now: datetime) -> bool:
        """Delete some of what has ended; tell whether there may be more."""
        ...


class Mails(Protocol):
    """How many mails went to which address; the address itself is not stored."""

    async def take_place(
        self, mail: UUID, address: str, now: datetime, *, mails: int, within: timedelta
    ) -> datetime | None:
        """Count a mail, or return when there is room for it; counting one again changes nothing.
        However many ask at once, an address gets no more than it may.
        """
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the older marks; tell whether there may be more."""
        ...


class JobQueue(Protocol):
    """Work to be done after the commit, by whichever worker is free; without it, never."""

    async def enqueue(self, *jobs: Job) -> None: ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the older log; tell whether there may be more."""
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

    @property
    def mails(self) -> Mails: ...

    @property
    def jobs(self) -> JobQueue: ...


class Database(Protocol):
    """Where the records are; raises `Unavailable` when they cannot be reached."""

    def begin(self) -> AbstractAsyncContextManager[Records]:
        """One transaction: committed at the end of the block, undone by an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[Records]:
        """Reads that need no common transaction; each statement sees what is committed."""
        ...


class Part(Protocol):
    """A part of the service that can be asked whether it answers."""

    @property
    def name(self) -> str: ...

    async def check(self) -> str:
        """Tell in a word how the part is, or raise `Unavailable`."""
        ...


class Mailer(Protocol):
    """The way out for mails; raises `MailRefused` for good, `Unavailable` for now."""

    async def send(self, mail: Mail) -> None: ...


class Links(Protocol):
    """Addresses within this service."""

    def docs(self) -> str: ...

    def share(self, code: str) -> str: ...

    def unsubscribe(self, token: str) -> str: ...


class MuteTokens(Protocol):
    """Tokens that let whoever holds a mail end the notifications, and nothing else."""

    def sign(self, user_id: UUID) -> str: ...

    def read(self, token: str) -> UUID:
        """Return whom a token was made for, or raise `NotFound`."""
        ...


class QrCodes(Protocol):
    """QR codes of links."""

    def svg(self, link: str) -> bytes: ...

    def png(self, link: str) -> bytes: ...


class JobDoer(Protocol):
    """Does a job of any kind; raises `Later` or `MailRefused`, anything else is tried again."""

    async def __call__(self, job: Job, run: Run, /) -> None: ...
