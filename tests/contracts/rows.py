"""Rows for the contract tests, with unique ids, because tests share a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from referral.adapters.system import SystemIdGenerator
from referral.core.entities.codes import Code
from referral.core.entities.events import Event
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.sessions import RefreshToken, Session
from referral.core.entities.users import Locale, Role, User
from referral.core.entities.webhook_deliveries import Delivery
from referral.core.entities.webhooks import Webhook
from referral.core.ports.repositories import Database

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
ID_GENERATOR = SystemIdGenerator()


def make_user(**changed: Any) -> User:
    """Return a new account."""
    user_id = ID_GENERATOR.new()
    email = f"U{user_id}@example.com"
    user = User(
        id=user_id,
        email=email,
        email_key=email.lower(),
        password_hash="a hash",  # noqa: S106 - of nothing
        role=Role.MEMBER,
        locale=Locale.EN,
        email_verified=False,
        notify_on_referral=True,
        created_at=NOW,
    )
    return replace(user, **changed)


def make_code(owner: User, **changed: Any) -> Code:
    """Return a new code that is active at `NOW` and for an hour."""
    code_id = ID_GENERATOR.new()
    code = Code(
        id=code_id,
        user_id=owner.id,
        text=f"Code-{code_id.hex[-20:]}",
        created_at=NOW,
        expires_at=NOW + HOUR,
        max_uses=None,
        uses=0,
        enabled=True,
    )
    return replace(code, **changed)


def make_referral(code: Code, referred: User, **changed: Any) -> Referral:
    """Return a new referral by a code."""
    referral = Referral(
        id=ID_GENERATOR.new(),
        referrer_id=code.user_id,
        referred_id=referred.id,
        code_id=code.id,
        code=code.text,
        status=ReferralStatus.CONFIRMED,
        joined_at=NOW,
    )
    return replace(referral, **changed)


def make_session(owner: User) -> Session:
    """Return a new session."""
    return Session(ID_GENERATOR.new(), owner.id, "first-party", "account", NOW, NOW + HOUR)


def make_refresh_token(session_id: UUID) -> RefreshToken:
    """Return a new, unused refresh token of a session."""
    return RefreshToken(ID_GENERATOR.new().bytes * 2, session_id, None)


async def store_user(store: Database, **changed: Any) -> User:
    """Store a new account."""
    user = make_user(**changed)
    async with store.begin() as repositories:
        await repositories.users.add(user)
    return user


async def store_code(store: Database, owner: User, **changed: Any) -> Code:
    """Store a new code."""
    code = make_code(owner, **changed)
    async with store.begin() as repositories:
        await repositories.codes.add(code)
    return code


async def store_referral(store: Database, code: Code, **changed: Any) -> tuple[Referral, User]:
    """Store a new account and its referral by a code."""
    referred = make_user()
    referral = make_referral(code, referred, **changed)
    async with store.begin() as repositories:
        await repositories.users.add(referred)
        await repositories.referrals.add(referral)
    return referral, referred


def make_webhook(**changed: Any) -> Webhook:
    """Return a new webhook that subscribes to all events."""
    webhook = Webhook(
        id=ID_GENERATOR.new(),
        url="https://shop.example/hook",
        events=("*",),
        description="Shop",
        enabled=True,
        disabled_reason=None,
        created_at=NOW,
        secret=b"encrypted",
    )
    return replace(webhook, **changed)


def make_delivery(webhook: Webhook, **changed: Any) -> Delivery:
    """Return a new delivery that is due at `NOW`."""
    delivery = Delivery(
        id=ID_GENERATOR.new(),
        webhook_id=webhook.id,
        event_id=ID_GENERATOR.new(),
        event_type="code.created",
        occurred_at=NOW - HOUR,
        created_at=NOW,
        scheduled_for=NOW,
    )
    return replace(delivery, **changed)


async def store_webhook(store: Database, **changed: Any) -> Webhook:
    """Store a new webhook."""
    webhook = make_webhook(**changed)
    async with store.begin() as repositories:
        await repositories.webhooks.add(webhook)
    return webhook


async def store_delivery(store: Database, webhook: Webhook, **changed: Any) -> Delivery:
    """Store a new event and its delivery."""
    delivery = make_delivery(webhook, **changed)
    event = Event(
        delivery.event_id, delivery.event_type, delivery.occurred_at, {"id": str(delivery.id)}
    )
    async with store.begin() as repositories:
        await repositories.events.add_unlisted(event)
        await repositories.deliveries.add([delivery])
    return delivery
