"""The audit log: who changed what. Its records name users and clients by id, never by address."""

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from referral.core.errors import InvalidRequest

MAX_REASON_CHARACTERS = 500
REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Characters that are not seen, or that change how others are shown, such as line ends."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOW_BITS = (1 << 62) - 1
FRACTION_STEPS = 1 << 12


class AuditAction(StrEnum):
    """What was done, as `<group>.<what happened>`; `subject` is the id of what it was done to."""

    USER_CREATED = "user.created"
    USER_CHANGED = "user.changed"
    USER_BLOCKED = "user.blocked"
    USER_UNBLOCKED = "user.unblocked"
    USER_ERASED = "user.erased"
    USER_REFERRER_SET = "user.referrer-set"
    PASSWORD_CHANGED = "password.changed"  # noqa: S105 - no password
    PASSWORD_RESET = "password.reset"  # noqa: S105
    PASSWORD_REMOVED = "password.removed"  # noqa: S105
    SESSION_STARTED = "session.started"
    SESSION_ENDED = "session.ended"
    SESSION_REUSED = "session.reused"
    TOKEN_EXCHANGED = "token.exchanged"  # noqa: S105
    CLIENT_CREATED = "client.created"
    CLIENT_SECRET_ROTATED = "client.secret-rotated"  # noqa: S105
    CLIENT_DELETED = "client.deleted"
    CODE_DEACTIVATED = "code.deactivated"
    REFERRAL_CONFIRMED = "referral.confirmed"
    REFERRAL_REJECTED = "referral.rejected"
    REFERRALS_EXPORTED = "referrals.exported"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_ENABLED = "webhook.enabled"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_SECRET_ROTATED = "webhook.secret-rotated"  # noqa: S105
    WEBHOOK_TESTED = "webhook.tested"
    WEBHOOK_REPLAYED = "webhook.replayed"
    DELIVERY_RETRIED = "delivery.retried"
    SIGNING_KEY_ADDED = "signing-key.added"
    SIGNING_KEY_REMOVED = "signing-key.removed"
    EXPORT_STARTED = "export.started"
    EXPORT_FINISHED = "export.finished"
    IMPORT_STARTED = "import.started"
    IMPORT_FINISHED = "import.finished"
    JOB_RETRIED = "job.retried"
    JOB_DISCARDED = "job.discarded"


class ActorType(StrEnum):
    """Kinds of actors: `service` is the service itself, without anybody's request."""

    USER = "user"
    CLIENT = "client"
    OPERATOR = "operator"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change; `id` is the id of a user or a client, otherwise the type's name."""

    type: ActorType
    id: str

    @classmethod
    def user(cls, user_id: UUID) -> "Actor":
        """Return a user as actor."""
        return cls(ActorType.USER, str(user_id))


OPERATOR = Actor(ActorType.OPERATOR, ActorType.OPERATOR)
"""Who runs the commands."""

SERVICE = Actor(ActorType.SERVICE, ActorType.SERVICE)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record of the audit log. `action` may be one that another release introduced.

    The id contains `at` to the microsecond, so that records sort by id as by time.
    """

    id: UUID
    at: datetime
    actor_type: str
    actor: str
    action: str
    subject: str
    reason: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records a list contains: since <= at < until; None means all."""

    actor: str | None = None
    subject: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def audit_record_id(at: datetime, random_bits: int = 0) -> UUID:
    """Return a UUIDv7 with the microseconds of `at` (RFC 9562, section 6.2, method 3).

    Without random bits it is the least id of that time.
    """
    milliseconds, microseconds = divmod(_microseconds(at), 1000)
    fraction = -(-microseconds * FRACTION_STEPS // 1000)
    version, variant = 0x7 << 76, 0b10 << 62
    bits = random_bits & LOW_BITS
    return UUID(int=milliseconds << 80 | version | fraction << 64 | variant | bits)


def make_audit_record(
    at: datetime, random_bits: int, actor: Actor, action: AuditAction, subject: str
) -> AuditRecord:
    """Return a record without a reason; the random bits make its id unique."""
    record_id = audit_record_id(at, random_bits)
    return AuditRecord(record_id, at, actor.type, actor.id, action, subject)


def validated_reason(reason: str) -> str:
    """Return an admin's reason without blanks around it, or raise `InvalidRequest`.

    It outlives the erasure of the user, so it must not name an e-mail address.
    """
    text = reason.strip()
    refused = REFUSED_CATEGORIES & {unicodedata.category(each) for each in text}
    if refused or not 0 < len(text) <= MAX_REASON_CHARACTERS:
        detail = (
            f"Send 1 to {MAX_REASON_CHARACTERS} characters in one line, without control and "
            "format characters."
        )
        raise InvalidRequest(detail, field="reason")
    if contains_address_sign(text):
        detail = "The reason must not contain an e-mail address or '@'. Name users by their ids."
        raise InvalidRequest(detail, field="reason")
    return text


def contains_address_sign(text: str) -> bool:
    """Return whether a text contains an @, in any width."""
    return "@" in unicodedata.normalize("NFKC", text)


def _microseconds(time: datetime) -> int:
    passed = time - EPOCH
    return max(0, (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds)
