"""The tables of the fake database."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn
from uuid import UUID

from asyncpg import DataError, IntegrityConstraintViolationError

from referral.core.entities.audit import AuditRecord
from referral.core.entities.authorization_codes import AuthorizationCode
from referral.core.entities.clients import Client
from referral.core.entities.codes import Code
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.email_links import OneTimeToken
from referral.core.entities.events import Event
from referral.core.entities.idempotency import StoredResponse
from referral.core.entities.jobs import Job
from referral.core.entities.login_sessions import LoginSession
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.sessions import RefreshToken, Session
from referral.core.entities.users import Profile, User
from referral.core.entities.webhook_deliveries import Delivery, Replay
from referral.core.entities.webhooks import Webhook


@dataclass(frozen=True)
class StoredIdempotentResponse:
    """A row of the stored responses of idempotent requests."""

    request_digest: bytes
    response: StoredResponse
    user_id: UUID | None
    created_at: datetime


@dataclass(frozen=True)
class NetworkRow:
    """A row of the networks of users."""

    seen_at: datetime
    registered_at: datetime | None = None


@dataclass
class Tables:
    """All rows; they are immutable, so a copy of the dicts is a snapshot."""

    users: dict[UUID, User] = field(default_factory=dict)
    password_costs: dict[UUID, int] = field(default_factory=dict)
    erased_users: dict[UUID, datetime] = field(default_factory=dict)
    codes: dict[UUID, Code] = field(default_factory=dict)
    deleted_codes: dict[UUID, datetime] = field(default_factory=dict)
    referrals: dict[UUID, Referral] = field(default_factory=dict)
    decisions: dict[tuple[UUID, ReferralStatus], datetime] = field(default_factory=dict)
    sessions: dict[UUID, Session] = field(default_factory=dict)
    refresh_tokens: dict[bytes, RefreshToken] = field(default_factory=dict)
    login_sessions: dict[bytes, LoginSession] = field(default_factory=dict)
    authorization_codes: dict[bytes, AuthorizationCode] = field(default_factory=dict)
    clients: dict[UUID, Client] = field(default_factory=dict)
    idempotent_responses: dict[bytes, StoredIdempotentResponse] = field(default_factory=dict)
    one_time_tokens: dict[bytes, OneTimeToken] = field(default_factory=dict)
    token_reservations: dict[bytes, datetime] = field(default_factory=dict)
    profiles: dict[UUID, Profile] = field(default_factory=dict)
    profile_times: dict[UUID, datetime] = field(default_factory=dict)
    verification_results: dict[bytes, tuple[datetime, Deliverability]] = field(default_factory=dict)
    referred_emails: dict[bytes, datetime] = field(default_factory=dict)
    notified_referrals: dict[UUID, UUID] = field(default_factory=dict)
    mail_slots: dict[UUID, tuple[str, datetime]] = field(default_factory=dict)
    user_networks: dict[tuple[UUID, bytes], NetworkRow] = field(default_factory=dict)
    signing_keys: dict[str, datetime] = field(default_factory=dict)
    audit: dict[UUID, AuditRecord] = field(default_factory=dict)
    expiries_reported_until: dict[UUID, datetime] = field(default_factory=dict)
    event_outbox: dict[UUID, Event] = field(default_factory=dict)
    events: dict[UUID, Event] = field(default_factory=dict)
    event_positions: dict[UUID, int] = field(default_factory=dict)
    last_event_position: int = 0
    webhooks: dict[UUID, Webhook] = field(default_factory=dict)
    deliveries: dict[UUID, Delivery] = field(default_factory=dict)
    replays: dict[UUID, Replay] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    aborted: bool = False

    def reject(self, error: Exception) -> NoReturn:
        """Fail a statement; as in PostgreSQL, its transaction is aborted."""
        self.aborted = True
        raise error

    def require(self, *, is_satisfied: bool, constraint: str) -> None:
        """Fail a statement that violates a constraint without an error of its own in the port."""
        if not is_satisfied:
            self.reject(IntegrityConstraintViolationError(constraint))

    def check_text(self, text: str) -> None:
        """Fail a statement with a text that PostgreSQL cannot store."""
        if "\0" in text:
            self.reject(DataError("a zero byte"))
