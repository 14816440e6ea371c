"""The database in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from referral.core.entities.account_view import AccountView
from referral.core.entities.codes import Code
from referral.core.entities.email_links import Purpose
from referral.core.entities.mail import MailReservation, MailReservationRequest
from referral.core.entities.users import Referrer
from referral.core.errors import Unavailable
from tests.support.fake_idempotency_records import (
    FakeClients,
    FakeIdempotencyRecords,
    FakeOneTimeTokens,
)
from tests.support.fake_knowledge import FakeProfiles, FakeReferredEmails, FakeVerdicts
from tests.support.fake_mail import FakeJobs, FakeMails
from tests.support.fake_repositories import FakeCodes, FakeReferrals, FakeSessions, FakeUsers
from tests.support.fake_tables import Tables


@dataclass(frozen=True)
class FakeRepositories:
    """The records of one transaction; nothing more is heard after one statement was refused."""

    tables: Tables

    @property
    def users(self) -> FakeUsers:
        return FakeUsers(self._usable())

    @property
    def codes(self) -> FakeCodes:
        return FakeCodes(self._usable())

    @property
    def referrals(self) -> FakeReferrals:
        return FakeReferrals(self._usable())

    @property
    def sessions(self) -> FakeSessions:
        return FakeSessions(self._usable())

    @property
    def clients(self) -> FakeClients:
        return FakeClients(self._usable())

    @property
    def idempotency(self) -> FakeIdempotencyRecords:
        return FakeIdempotencyRecords(self._usable())

    @property
    def one_time_tokens(self) -> FakeOneTimeTokens:
        return FakeOneTimeTokens(self._usable())

    @property
    def mails(self) -> FakeMails:
        return FakeMails(self._usable())

    @property
    def profiles(self) -> FakeProfiles:
        return FakeProfiles(self._usable())

    @property
    def verdicts(self) -> FakeVerdicts:
        return FakeVerdicts(self._usable())

    @property
    def referred_emails(self) -> FakeReferredEmails:
        return FakeReferredEmails(self._usable())

    @property
    def jobs(self) -> FakeJobs:
        return FakeJobs(self._usable())

    def _usable(self) -> Tables:
        if self.tables.aborted:
            raise Unavailable
        return self.tables


class FakeDatabase:
    """Transactions one after another, each on a copy that takes the place of what was there."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FakeRepositories]:
        async with self._turn:
            draft = Tables()
            _assign(draft, self._tables)
            # Here others come between, as they do while PostgreSQL answers.
            await asyncio.sleep(0)
            yield FakeRepositories(draft)
            if not draft.aborted:
                _assign(self._tables, draft)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[FakeRepositories]:
        yield FakeRepositories(self._tables)


class FakeReadModel:
    """The frequent reads, put together from the others."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database

    async def code_of(self, email_key: str, *, confirmed_only: bool) -> Code | None:
        async with self._database.read() as records:
            owner = await records.users.by_email(email_key)
            if owner is None or owner.blocked_at is not None:
                return None
            if confirmed_only and not owner.email_verified:
                return None
            codes = records.tables.codes.values()
            return next((code for code in codes if code.user_id == owner.id and code.enabled), None)

    async def may_change(self, user_id: UUID, session_id: UUID) -> bool:
        async with self._database.read() as records:
            user = records.tables.users.get(user_id)
            blocked = user is not None and user.blocked_at is not None
            return blocked or await records.sessions.get(session_id) is not None

    async def account(self, user_id: UUID, recent: int, now: datetime) -> AccountView | None:
        async with self._database.read() as records:
            user = await records.users.get(user_id)
            if user is None:
                return None
            joined_by = await records.referrals.of(user_id)
            referrer = joined_by and await records.users.get(joined_by.referrer_id)
            codes = records.tables.codes.values()
            return AccountView(
                user=user,
                referrer=Referrer(referrer.id, referrer.email) if referrer else None,
                referral_count=sum(code.uses for code in codes if code.user_id == user_id),
                recent_referrals=await records.referrals.newest(
                    user_id, status=None, after=None, limit=recent
                ),
                active_code=await records.codes.active(user_id, now),
                now=now,
                profile=await records.profiles.of(user_id),
            )


class FakeMailReservations:
    """What mails begin with, put together from the others."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database

    async def take(self, postage: MailReservationRequest) -> MailReservation | None:
        token = postage.token
        async with self._database.begin() as records:
            user = await records.users.get(postage.user_id)
            if user is None:
                return None
            if token is not None and token.purpose is Purpose.CONFIRM and user.email_verified:
                return None
            free_at = (
                None
                if postage.places is None
                else await records.mails.take_place(
                    postage.mail,
                    user.email_key,
                    postage.at,
                    mails=postage.places,
                    within=postage.within,
                )
            )
            if token is not None and free_at is None:
                await records.one_time_tokens.add(token)
        return MailReservation(user, free_at)


def _assign(to: Tables, tables: Tables) -> None:
    for each in fields(Tables):
        value = getattr(tables, each.name)
        setattr(to, each.name, value.copy() if isinstance(value, dict | set) else value)
