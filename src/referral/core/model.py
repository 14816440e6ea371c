"""The entities and their rules. Times are aware and in UTC, ids UUIDv7."""

import re
import unicodedata
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar
from uuid import UUID

from referral.core.errors import CodeExhausted, CodeExpired, InvalidRequest, WeakPassword

T = TypeVar("T")

MIN_LIFETIME = timedelta(minutes=1)
MAX_LIFETIME = timedelta(days=365)
MINUTE = timedelta(minutes=1)
CLOCK_SKEW = timedelta(seconds=5)
"""How far a client's clock, and the way here, may stretch the two bounds above."""

MIN_CODE_CHARACTERS = 3
MAX_CODE_CHARACTERS = 32
CODE_TEXT = re.compile(rf"[A-Za-z0-9-]{{{MIN_CODE_CHARACTERS},{MAX_CODE_CHARACTERS}}}")
"""Every text that a code may have; no other is ever looked for."""

MAX_USES = 2**31 - 1
"""The highest `max_uses` of a code: what the database's integer holds."""

MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_BYTES = 1024

CLAIM_WINDOW = timedelta(days=7)
"""How long after joining one may still say who one's referrer is."""

GOOD_FOR = timedelta(days=30)
"""How long it counts what a third party said of an address."""

CONFIRMATION_PERIOD = timedelta(days=30)
"""How long an account may stay unconfirmed before it is erased."""

PENDING_PERIOD = timedelta(days=7)
"""How long a referral may be pending before it is rejected."""

REFERRED_AGAIN_AFTER = timedelta(days=365)
"""How long after somebody joined by a referral the same e-mail address is not referred again."""

REFRESH_GRACE = timedelta(seconds=10)
"""How long a used refresh token may be played again, for an answer lost on the way.

Of all tokens that are given for it, the first one used lives on.
"""


class Role(StrEnum):
    """What an account may do beyond its own affairs."""

    MEMBER = "member"
    ADMIN = "admin"


class Scope(StrEnum):
    """What an access token is good for: one's own account, or what a client was given."""

    ACCOUNT = "account"
    CODES_READ = "codes:read"
    REFERRALS_READ = "referrals:read"
    USERS_READ = "users:read"


class Locale(StrEnum):
    """The languages of mails and pages."""

    EN = "en"
    RU = "ru"


class CodeStatus(StrEnum):
    """What a code is good for at one instant."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"


class ReferralStatus(StrEnum):
    """How far a referral has come."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class Visibility(StrEnum):
    """What a stranger sees of someone's referrals."""

    OPEN = "open"
    REDACTED = "redacted"
    OWNER = "owner"


class Deliverability(StrEnum):
    """Whether mail to an address arrives, as a third party says."""

    UNKNOWN = "unknown"
    VALID = "valid"
    INVALID = "invalid"
    ACCEPT_ALL = "accept_all"
    WEBMAIL = "webmail"
    DISPOSABLE = "disposable"
    BLOCKED = "blocked"

    @property
    def refuses(self) -> bool:
        """Whether nobody may register with such an address."""
        return self in {Deliverability.INVALID, Deliverability.DISPOSABLE}


@dataclass(frozen=True, slots=True)
class Profile:
    """What is publicly known about the owner of an address."""

    name: str | None = None
    title: str | None = None
    company: str | None = None
    domain: str | None = None
    country: str | None = None
    avatar_url: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """An e-mail address: as typed, and in the form that all its spellings share."""

    typed: str
    canonical: str

    @property
    def local_part(self) -> str:
        """What stands before the @-sign, in NFC."""
        return unicodedata.normalize("NFC", self.typed.rpartition("@")[0])


@dataclass(frozen=True, slots=True)
class User:
    """An account. `email` is as typed; `email_key` is its canonical form, and unique.

    `confirm_by` is when an unconfirmed account is erased; None where confirmation is not required.
    """

    id: UUID
    email: str
    email_key: str
    password_hash: str
    role: Role
    locale: Locale
    email_verified: bool
    notify_on_referral: bool
    created_at: datetime
    blocked_at: datetime | None = None
    deliverability: Deliverability = Deliverability.UNKNOWN
    confirm_by: datetime | None = None

    def unblocked(self, now: datetime) -> "User":
        """Return the account without its block, and with the whole time to confirm it again."""
        confirm_by = self.confirm_by and now + CONFIRMATION_PERIOD
        return replace(self, blocked_at=None, confirm_by=confirm_by)

    @property
    def mailbox(self) -> str:
        """Where mail goes: the local part as typed, since its case may matter, and the domain
        in ASCII, so that not every mail to an international domain needs SMTPUTF8.
        """
        return f"{self.email.rpartition('@')[0]}@{self.email_key.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a user has to confirm the address before the referral counts."""

    required: bool

    def is_done_for(self, user: User) -> bool:
        """Tell whether nothing is left to confirm."""
        return user.email_verified or not self.required

    def deadline(self, now: datetime) -> datetime | None:
        """Return when an account that registers at `now` is erased unless it is confirmed."""
        return now + CONFIRMATION_PERIOD if self.required else None


class Purpose(StrEnum):
    """What a link in a mail is for."""

    CONFIRM = "confirm"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """What the link in a mail proves; the token itself is in the mail alone."""

    digest: bytes
    user_id: UUID
    purpose: Purpose
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Postage:
    """What a mail to a user begins with: one of so many `places` that the address has within a
    time, or none where it takes none, and maybe the token of its link.
    """

    mail: UUID
    user_id: UUID
    at: datetime
    places: int | None
    within: timedelta
    token: OneTimeToken | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """Whom a mail is for, and when there is a place for it when there is none now."""

    user: User
    free_at: datetime | None


@dataclass(frozen=True, slots=True)
class Allowance:
    """Where a caller stands with a limit of so many in so many seconds."""

    granted: bool
    limit: int
    seconds: int
    remaining: int
    resets_in: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request: a user, or a client, which has no `user_id`.

    `session_id` is the login that the user's token comes from.
    """

    client_id: str
    scopes: frozenset[str]
    user_id: UUID | None
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What an access token says; `subject` is the id of a user or of a client."""

    id: str
    subject: str
    caller: Caller
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Client:
    """Another service; its secret is stored as a digest."""

    id: UUID
    name: str
    secret_digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Code:
    """A referral code.

    `enabled` is false once it was deactivated or retired; at most one code of a user is enabled,
    which the database sees to. Whether an enabled code is active is for the clock to say.
    """

    id: UUID
    user_id: UUID
    text: str
    created_at: datetime
    expires_at: datetime
    max_uses: int | None
    uses: int
    enabled: bool

    def status(self, now: datetime) -> CodeStatus:
        """Tell what the code is good for at `now`; that it has run out comes before the rest."""
        if self.expires_at <= now:
            return CodeStatus.EXPIRED
        if self.max_uses is not None and self.uses >= self.max_uses:
            return CodeStatus.EXHAUSTED
        return CodeStatus.ACTIVE if self.enabled else CodeStatus.INACTIVE

    def is_active(self, now: datetime) -> bool:
        """Tell whether someone can join with the code at `now`."""
        return self.status(now) is CodeStatus.ACTIVE

    def checked(self) -> "Code":
        """Return the code, or raise `InvalidRequest` for a text or maximum that none may have."""
        if not CODE_TEXT.fullmatch(self.text):
            bounds = f"{MIN_CODE_CHARACTERS} to {MAX_CODE_CHARACTERS}"
            detail = f"A code has {bounds} characters: letters A to Z, digits and hyphens."
            raise InvalidRequest(detail, field="code")
        if self.max_uses is not None and not 1 <= self.max_uses <= MAX_USES:
            raise InvalidRequest(f"A maximum of uses is 1 to {MAX_USES:,}.", field="max_uses")
        return self

    def activated(self, now: datetime) -> "Code":
        """Return the code in force, or raise `CodeExpired` or `CodeExhausted`."""
        match self.status(now):
            case CodeStatus.EXPIRED:
                raise CodeExpired
            case CodeStatus.EXHAUSTED:
                raise CodeExhausted
            case _:
                return replace(self, enabled=True)

    def deactivated(self) -> "Code":
        """Return the code out of force."""
        return replace(self, enabled=False)


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a code ends: at a time, or so many minutes from now. Exactly one of the two."""

    at: datetime | None = None
    minutes: int | None = None

    def resolve(self, now: datetime) -> datetime:
        """Return the time it stands for, or raise `InvalidRequest`."""
        if (self.at is None) == (self.minutes is None):
            detail = "Send exactly one of 'expires_at' and 'lifetime_minutes'."
            raise InvalidRequest(detail, field="expires_at")
        if self.minutes is not None:
            return now + self._lifetime(self.minutes)
        if self.at is None or self.at.tzinfo is None:
            raise InvalidRequest("A time needs an offset.", field="expires_at")
        if not MIN_LIFETIME - CLOCK_SKEW <= self.at - now <= MAX_LIFETIME + CLOCK_SKEW:
            detail = "A code ends between 1 minute and 365 days from now."
            raise InvalidRequest(detail, field="expires_at")
        return self.at.astimezone(UTC)

    @staticmethod
    def _lifetime(minutes: int) -> timedelta:
        if not MIN_LIFETIME // MINUTE <= minutes <= MAX_LIFETIME // MINUTE:
            detail = f"A code lives 1 to {MAX_LIFETIME // MINUTE:,} minutes."
            raise InvalidRequest(detail, field="lifetime_minutes")
        return minutes * MINUTE


@dataclass(frozen=True, slots=True)
class Referral:
    """That `referred_id` joined with a code of `referrer_id`; `code` is its text at that time."""

    id: UUID
    referrer_id: UUID
    referred_id: UUID
    code_id: UUID
    code: str
    status: ReferralStatus
    joined_at: datetime

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether the referral was pending for too long to be confirmed at `now`."""
        return self.joined_at + PENDING_PERIOD <= now


@dataclass(frozen=True, slots=True)
class Joined:
    """A referral as it is listed: `id` is the referred user's, `referral_id` its place.

    An erased user has no address.
    """

    referral_id: UUID
    id: UUID
    email: str | None
    status: ReferralStatus
    code: str
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class Referrer:
    """Whose code a user joined with; `email` is None for who may not see it."""

    id: UUID
    email: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """A user in full, as of `now`."""

    user: User
    referrer: Referrer | None
    referral_count: int
    recent_referrals: list[Joined]
    active_code: Code | None
    now: datetime
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """All that follows from one login: a family of refresh tokens with one end."""

    id: UUID
    user_id: UUID
    client_id: str
    scope: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One token of a session; the token itself is not stored, only its SHA-256.

    `parent` is the token that it was given for, `heir` the first used of those given for it. Both
    are digests.
    """

    digest: bytes
    session_id: UUID
    used_at: datetime | None
    parent: bytes | None = None
    heir: bytes | None = None

    def is_reuse(self, now: datetime) -> bool:
        """Tell whether playing the token at `now` means that it was stolen.

        An answer may be lost on the way, so a used token is good for `REFRESH_GRACE`, unless one
        of the tokens given for it was used: then an answer arrived.
        """
        if self.used_at is None:
            return False
        return self.heir is not None or now - self.used_at > REFRESH_GRACE

    def has_other_heir(self, token: "RefreshToken") -> bool:
        """Tell whether another token than the one named was used of those given for this one."""
        return self.heir not in {None, token.digest}


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to be written: a template's name, and the facts that it tells.

    Every attempt at a mail has the same `id`. `mute` is the address that ends mails of this kind,
    `qr` a link that is shown as a picture too.
    """

    id: UUID
    to: str
    locale: Locale
    template: str
    facts: Mapping[str, object]
    mute: str | None = None
    qr: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A stretch of a list, newest first; `after` is where the next one begins, None at the end."""

    items: list[T]
    after: UUID | None

    @classmethod
    def cut(cls, found: list[T], limit: int, place: Callable[[T], UUID]) -> "Page[T]":
        """Make a page of `limit` out of up to `limit + 1` items, the last showing there is more."""
        items = found[:limit]
        return cls(items, place(items[-1]) if len(found) > limit else None)


KeptResponse = Mapping[str, object]
"""The response to a request, to be given again. Only the web layer knows what is in it."""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[T]):
    """A request that carries an idempotency key.

    `key` is a digest of the key and of whose it is, `fingerprints` are what the body may have
    been remembered by, the newest first; `respond` turns the result into the response to keep.
    """

    key: bytes
    fingerprints: tuple[bytes, ...]
    respond: Callable[[T], KeptResponse]


def normal_password(password: str) -> str:
    """Return the password in NFC, so that every keyboard spells it the same.

    Raises `WeakPassword` for a password longer than any account can have. The length comes first:
    normalising takes time that grows with the square of the length.
    """
    _check_length(password)
    return unicodedata.normalize("NFC", password)


def accept_password(password: str, user: Address, common: Container[str], *, field: str) -> str:
    """Return a new password in NFC, or raise `WeakPassword` with the name of its field."""
    try:
        normal = normal_password(password)
        check_password(normal, user, common)
    except WeakPassword as error:
        raise WeakPassword(error.detail, field=field) from None
    return normal


def check_password(password: str, address: Address, common: Container[str]) -> None:
    """Raise `WeakPassword` for one that is too short, too long or easily guessed.

    The rules are those of OWASP's ASVS 5.0, 6.2: a length and a list, no make-up rules.
    """
    _check_length(password)
    if len(password) < MIN_PASSWORD_CHARACTERS:
        fault = f"Use at least {MIN_PASSWORD_CHARACTERS} characters."
    elif password.lower() in common:
        fault = "This password is on the lists that attackers try first. Choose another."
    elif password.lower() == address.local_part.lower():
        fault = "This password is the first part of your e-mail address. Choose another."
    else:
        return
    raise WeakPassword(fault)


def _check_length(password: str) -> None:
    if len(password.encode(errors="surrogatepass")) > MAX_PASSWORD_BYTES:
        raise WeakPassword(f"Use at most {MAX_PASSWORD_BYTES} bytes.")
