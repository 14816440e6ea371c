"""The webhooks of the OpenAPI document: the requests to receivers, with the data of each event."""

from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from referral.core.entities.codes import CodeStatus
from referral.core.entities.referrals import ReferralStatus
from referral.web.field_types import Timestamp
from referral.web.openapi_schemas import SCHEMA_REF_PREFIX

Node = dict[str, Any]

EVENT_TYPES_TAG = "Event types"
"""Not that of the routes: openapi-generator writes a class for each tag, first of the routes and
then of the webhooks, which are no use to a client.
"""

EventId = Annotated[UUID, Meta(description="Equal to the header `webhook-id`.")]
ExternalId = Annotated[str | None, Meta(description="Null after an erasure.")]


class UserEventData(Struct):
    """The user."""

    user_id: UUID
    external_id: ExternalId


class UserRegisteredEventData(UserEventData):
    """The new user; `referrer_id` and `code` are those of the referral, or null."""

    referrer_id: UUID | None
    code: str | None


class CodeEventData(Struct):
    """The code after the change; `user_id` is its owner."""

    code_id: UUID
    user_id: UUID
    code: str
    status: CodeStatus
    expires_at: Timestamp
    uses: int
    max_uses: int | None


class ReferralEventData(Struct):
    """The referral after the change; `user_id` is the referred user, `reason` that of an admin."""

    referral_id: UUID
    referrer_id: UUID
    user_id: UUID
    code_id: UUID | None
    code: str | None
    status: ReferralStatus
    joined_at: Timestamp
    reason: str | None


class WebhookTestEventData(Struct):
    """The webhook that is tested."""

    webhook_id: UUID


class UserRegisteredEvent(Struct):
    """A new account."""

    id: EventId
    type: Literal["user.registered"]
    timestamp: Timestamp
    data: UserRegisteredEventData


class UserEvent(Struct):
    """A change of an account."""

    id: EventId
    type: Literal["user.verified", "user.blocked", "user.unblocked", "user.erased"]
    timestamp: Timestamp
    data: UserEventData


class CodeEvent(Struct):
    """A change of a referral code."""

    id: EventId
    type: Literal[
        "code.created",
        "code.activated",
        "code.deactivated",
        "code.renewed",
        "code.deleted",
        "code.expired",
        "code.exhausted",
    ]
    timestamp: Timestamp
    data: CodeEventData


class ReferralEvent(Struct):
    """A change of a referral."""

    id: EventId
    type: Literal["referral.created", "referral.confirmed", "referral.rejected"]
    timestamp: Timestamp
    data: ReferralEventData


class WebhookTestEvent(Struct):
    """A test that was requested."""

    id: EventId
    type: Literal["webhook.test"]
    timestamp: Timestamp
    data: WebhookTestEventData


WEBHOOKS: dict[str, tuple[type[Struct], str]] = {
    "user.registered": (UserRegisteredEvent, "An account was created."),
    "user.verified": (UserEvent, "An e-mail address was confirmed."),
    "user.blocked": (UserEvent, "An account was blocked."),
    "user.unblocked": (UserEvent, "An account was unblocked."),
    "user.erased": (UserEvent, "An account was erased; its codes were deleted before."),
    "code.created": (CodeEvent, "A code was created, active or not."),
    "code.activated": (CodeEvent, "A code was activated."),
    "code.deactivated": (CodeEvent, "A code was deactivated, or replaced by another one."),
    "code.renewed": (CodeEvent, "The expiry or the maximum number of uses was changed."),
    "code.deleted": (CodeEvent, "A code was deleted."),
    "code.expired": (CodeEvent, "An active code expired, at most 15 s ago."),
    "code.exhausted": (CodeEvent, "An active code got its last use."),
    "referral.created": (ReferralEvent, "A user joined with a code."),
    "referral.confirmed": (ReferralEvent, "A referral was confirmed: it counts."),
    "referral.rejected": (ReferralEvent, "A referral was rejected: it does not count."),
    "webhook.test": (WebhookTestEvent, "A client requested a test of the webhook."),
}
"""The schema of each type of event, and when it occurs."""

EVENT_SCHEMAS = frozenset(schema.__name__ for schema, _ in WEBHOOKS.values())


def describe_webhooks() -> Node:
    """Return the document's `webhooks`, by type of event."""
    return {
        event_type: {"post": _operation(event_type, schema.__name__, occasion)}
        for event_type, (schema, occasion) in WEBHOOKS.items()
    }


def _operation(event_type: str, schema: str, occasion: str) -> Node:
    name = event_type.title().replace(".", "")
    this_type = {"properties": {"type": {"const": event_type}}}
    body = {"schema": {"allOf": [{"$ref": SCHEMA_REF_PREFIX + schema}, this_type]}}
    return {
        "operationId": f"receive{name}",
        "tags": [EVENT_TYPES_TAG],
        "summary": event_type,
        "description": occasion,
        "security": [],
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"2XX": {"description": "The receiver accepted the event."}},
    }
