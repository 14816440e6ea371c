"""The fake of the database: transactions, read model and mail reservations in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from referral.core.entities.account_view import AccountView
from referral.core.entities.codes import Code
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.mail import MailReservation, MailReservationRequest
from referral.core.entities.users import Referrer
from referral.core.errors import Unavailable
from tests.support.fakes.audit import FakeAuditLog
from tests.support.fakes.events import FakeEventLog
from tests.support.fakes.login_sessions import (
    FakeAuthorizationCodeRepository,
    FakeLoginSessionRepository,
)
from tests.support.fakes.mail import FakeJobQueue, FakeMailQuota
from tests.support.fakes.repositories import (
    FakeCodeRepository,
    FakeReferralRepository,
    FakeSessionRepository,
    FakeUserRepository,
)
from tests.support.fakes.risk import FakeUserNetworks
from tests.support.fakes.searches import FakeCodeSearch, FakeReferralSearch, count_referrals
from tests.support.fakes.signing_keys import FakeSigningKeyRegistry
from tests.support.fakes.statistics import FakeStatisticsRepository
from tests.support.fakes.tables import Tables
from tests.support.fakes.third_parties import (
    FakeProfileRepository,
    FakeReferredEmailRepository,
    FakeVerificationResultRepository,
)
from tests.support.fakes.token_repositories import (
    FakeClientRepository,
    FakeIdempotencyRepository,
    FakeOneTimeTokenRepository,
)
from tests.support.fakes.user_directory import FakeUserDirectory
from tests.support.fakes.webhooks import (
    FakeDeliveryRepository,
    FakeReplayRepository,
    FakeWebhookRepository,
)


@dataclass(frozen=True)
class FakeRepositories:
    """The repositories of one transaction; after a failed statement, every further one fails."""

    tables: Tables

    @property
    def users(self) -> FakeUserRepository:
        return FakeUserRepository(self._open_tables())

    @property
    def user_directory(self) -> FakeUserDirectory:
        return FakeUserDirectory(self._open_tables())

    @property
    def codes(self) -> FakeCodeRepository:
        return FakeCodeRepository(self._open_tables())

    @property
    def referrals(self) -> FakeReferralRepository:
        return FakeReferralRepository(self._open_tables())

    @property
    def sessions(self) -> FakeSessionRepository:
        return FakeSessionRepository(self._open_tables())

    @property
    def login_sessions(self) -> FakeLoginSessionRepository:
        return FakeLoginSessionRepository(self._open_tables())

    @property
    def authorization_codes(self) -> FakeAuthorizationCodeRepository:
        return FakeAuthorizationCodeRepository(self._open_tables())

    @property
    def clients(self) -> FakeClientRepository:
        return FakeClientRepository(self._open_tables())

    @property
    def idempotency(self) -> FakeIdempotencyRepository:
        return FakeIdempotencyRepository(self._open_tables())

    @property
    def one_time_tokens(self) -> FakeOneTimeTokenRepository:
        return FakeOneTimeTokenRepository(self._open_tables())

    @property
    def mail_quota(self) -> FakeMailQuota:
        return FakeMailQuota(self._open_tables())

    @property
    def profiles(self) -> FakeProfileRepository:
        return FakeProfileRepository(self._open_tables())

    @property
    def verification_results(self) -> FakeVerificationResultRepository:
        return FakeVerificationResultRepository(self._open_tables())

    @property
    def referred_emails(self) -> FakeReferredEmailRepository:
        return FakeReferredEmailRepository(self._open_tables())

    @property
    def code_search(self) -> FakeCodeSearch:
        return FakeCodeSearch(self._open_tables())

    @property
    def referral_search(self) -> FakeReferralSearch:
        return FakeReferralSearch(self._open_tables())

    @property
    def networks(self) -> FakeUserNetworks:
        return FakeUserNetworks(self._open_tables())

    @property
    def signing_keys(self) -> FakeSigningKeyRegistry:
        return FakeSigningKeyRegistry(self._open_tables())

    @property
    def audit(self) -> FakeAuditLog:
        return FakeAuditLog(self._open_tables())

    @property
    def events(self) -> FakeEventLog:
        return FakeEventLog(self._open_tables())

    @property
    def webhooks(self) -> FakeWebhookRepository:
        return FakeWebhookRepository(self._open_tables())

    @property
    def deliveries(self) -> FakeDeliveryRepository:
        return FakeDeliveryRepository(self._open_tables())

    @property
    def replays(self) -> FakeReplayRepository:
        return FakeReplayRepository(self._open_tables())

    @property
    def statistics(self) -> FakeStatisticsRepository:
        return FakeStatisticsRepository(self._open_tables())

    @property
    def jobs(self) -> FakeJobQueue:
        return FakeJobQueue(self._open_tables())

    def _open_tables(self) -> Tables:
        if self.tables.aborted:
            raise Unavailable
        return self.tables


class FakeDatabase:
    """Serial transactions, each on a copy of the tables that replaces them at the commit."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FakeRepositories]:
        async with self._lock:
            draft = Tables()
            _copy_tables(draft, self._tables)
            # Other tasks run here, as they do while PostgreSQL responds.
            await asyncio.sleep(0)
            yield FakeRepositories(draft)
            if not draft.aborted:
                _copy_tables(self._tables, draft)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[FakeRepositories]:
        yield FakeRepositories(self._tables)


class FakeReadModel:
    """The read model, composed of the fake repositories."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database

    async def find_code(self, email_key: str, *, confirmed_only: bool) -> Code | None:
        async with self._database.read() as repositories:
            owner = await repositories.users.find_by_email(email_key)
            if owner is None or owner.blocked_at is not None:
                return None
            if confirmed_only and not owner.email_verified:
                return None
            codes = repositories.tables.codes.values()
            return next((code for code in codes if code.user_id == owner.id and code.enabled), None)

    async def find_code_by_text(self, text: str) -> Code | None:
        async with self._database.read() as repositories:
            tables = repositories.tables
            return next(
                (
                    code
                    for code in tables.codes.values()
                    if code.text.upper() == text.upper()
                    and code.id not in tables.deleted_codes
                    and tables.users[code.user_id].blocked_at is None
                ),
                None,
            )

    async def has_session_or_is_blocked(self, user_id: UUID, session_id: UUID) -> bool:
        async with self._database.read() as repositories:
            user = repositories.tables.users.get(user_id)
            blocked = user is not None and user.blocked_at is not None
            return blocked or await repositories.sessions.find(session_id) is not None

    async def find_account(
        self, user_id: UUID, recent_limit: int, now: datetime
    ) -> AccountView | None:
        async with self._database.read() as repositories:
            user = await repositories.users.find(user_id)
            if user is None:
                return None
            referral = await repositories.referrals.find_by_referred(user_id)
            referrer = referral and await repositories.users.find(referral.referrer_id)
            codes = repositories.tables.codes.values()
            enabled = [code for code in codes if code.user_id == user_id and code.enabled]
            return AccountView(
                user=user,
                referrer=Referrer(referrer.id, referrer.email) if referrer else None,
                referral_count=count_referrals(repositories.tables, user_id),
                recent_referrals=await repositories.referrals.list_page(
                    user_id, status=None, after=None, limit=recent_limit
                ),
                active_code=await repositories.codes.find_active(user_id, now),
                as_of=now,
                profile=await repositories.profiles.find(user_id),
                enabled_code=enabled[0] if enabled else None,
            )

    async def find_logged_in_account(
        self, login_digest: bytes, recent_limit: int, now: datetime
    ) -> AccountView | None:
        async with self._database.read() as repositories:
            found = await repositories.login_sessions.find(login_digest, now)
        return await self.find_account(found.user_id, recent_limit, now) if found else None


class FakeMailReservations:
    """Mail reservations, composed of the fake repositories."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database

    async def reserve(self, request: MailReservationRequest) -> MailReservation | None:
        token = request.token
        async with self._database.begin() as repositories:
            user = await repositories.users.find(request.user_id)
            if user is None:
                return None
            if token is not None and token.purpose is TokenPurpose.CONFIRM and user.email_verified:
                return None
            retry_at = (
                None
                if request.slots is None
                else await repositories.mail_quota.reserve_slot(
                    request.mail_id,
                    user.email_key,
                    request.requested_at,
                    slots=request.slots,
                    window=request.window,
                )
            )
            if token is not None and retry_at is None:
                await repositories.one_time_tokens.add(token)
        return MailReservation(user, retry_at)


def _copy_tables(target: Tables, tables: Tables) -> None:
    for each in fields(Tables):
        value = getattr(tables, each.name)
        setattr(target, each.name, value.copy() if isinstance(value, dict | set) else value)
