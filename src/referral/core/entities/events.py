"""Events: records of the changes to users, codes and referrals.

`data` is ready for JSON, and holds ids, codes, states and times, never an e-mail address, a name or
a network address.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from referral.core.entities.codes import Code
from referral.core.entities.referrals import Referral
from referral.core.entities.users import User

EVENT_RETENTION = timedelta(days=30)
"""How long events are stored."""


class EventType(StrEnum):
    """The types of events, as `<group>.<what happened>`."""

    USER_REGISTERED = "user.registered"
    USER_VERIFIED = "user.verified"
    USER_BLOCKED = "user.blocked"
    USER_UNBLOCKED = "user.unblocked"
    USER_ERASED = "user.erased"
    CODE_CREATED = "code.created"
    CODE_ACTIVATED = "code.activated"
    CODE_DEACTIVATED = "code.deactivated"
    CODE_RENEWED = "code.renewed"
    CODE_DELETED = "code.deleted"
    CODE_EXPIRED = "code.expired"
    CODE_EXHAUSTED = "code.exhausted"
    REFERRAL_CREATED = "referral.created"
    REFERRAL_CONFIRMED = "referral.confirmed"
    REFERRAL_REJECTED = "referral.rejected"
    WEBHOOK_TEST = "webhook.test"


FEED_EVENT_TYPES = tuple(each for each in EventType if each is not EventType.WEBHOOK_TEST)
"""The types of events in the feed, to which webhooks can subscribe."""


@dataclass(frozen=True, slots=True)
class EventContent:
    """An event without its id."""

    type: EventType
    occurred_at: datetime
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Event:
    """An event. `type` may be one that a later release introduced."""

    id: UUID
    type: str
    occurred_at: datetime
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event and its position in the feed; positions increase, with gaps."""

    position: int
    event: Event


def registration_events(user: User, referral: Referral | None = None) -> list[EventContent]:
    """Return the events of a new account, with the referral by which the user joined."""
    data = _user_data(user) | {
        "referrer_id": str(referral.referrer_id) if referral else None,
        "code": referral.code if referral else None,
    }
    registered = EventContent(EventType.USER_REGISTERED, user.created_at, data)
    if not user.email_verified:
        return [registered]
    return [registered, user_event(EventType.USER_VERIFIED, user, user.created_at)]


def user_event(event_type: EventType, user: User, now: datetime) -> EventContent:
    """Return an event of an account: verified, blocked or unblocked."""
    return EventContent(event_type, now, _user_data(user))


def user_erased(user_id: UUID, now: datetime) -> EventContent:
    """Return the event of an erasure."""
    data = {"user_id": str(user_id), "external_id": None}
    return EventContent(EventType.USER_ERASED, now, data)


def code_event(event_type: EventType, code: Code, now: datetime) -> EventContent:
    """Return an event of a code as it is after the change."""
    data = {
        "code_id": str(code.id),
        "user_id": str(code.user_id),
        "code": code.text,
        "status": code.status(now),
        "expires_at": format_time(code.expires_at),
        "uses": code.uses,
        "max_uses": code.max_uses,
    }
    return EventContent(event_type, now, data)


def referral_event(
    event_type: EventType, referral: Referral, now: datetime, reason: str | None = None
) -> EventContent:
    """Return an event of a referral as it is after the change; `reason` is an admin's."""
    data = {
        "referral_id": str(referral.id),
        "referrer_id": str(referral.referrer_id),
        "user_id": str(referral.referred_id),
        "code_id": referral.code_id and str(referral.code_id),
        "code": referral.code,
        "status": referral.status,
        "joined_at": format_time(referral.joined_at),
        "reason": reason,
    }
    return EventContent(event_type, now, data)


def format_time(time: datetime) -> str:
    """Return a time as in the API: RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _user_data(user: User) -> dict[str, object]:
    return {"user_id": str(user.id), "external_id": user.external_id}
