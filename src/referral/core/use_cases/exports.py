"""Exports of one account, and the records of exports of all of them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.audit import OPERATOR, AuditAction
from referral.core.entities.codes import Code
from referral.core.entities.login_sessions import LoginSession
from referral.core.entities.referrals import Referral, ReferralListItem
from referral.core.entities.risk import UserNetwork
from referral.core.entities.sessions import Session
from referral.core.entities.users import Profile, User
from referral.core.errors import Unauthenticated
from referral.core.policies.audit_recording import RecordAudit
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock

EXPORT_CHUNK_SIZE = 1000
"""How many referrals each query reads."""

ALL_DATA = "all"
"""The subject of the record of an export whose file does not exist yet."""


@dataclass(frozen=True, slots=True)
class AccountExport:
    """All stored data of a user, except hashes of the password, tokens and networks.

    The risk of the user's referral is for admins only.
    """

    user: User
    referred_by: Referral | None
    codes: list[Code]
    referrals: list[ReferralListItem]
    sessions: list[Session]
    login_sessions: list[LoginSession]
    networks: list[UserNetwork]
    profile: Profile | None
    as_of: datetime


@dataclass(frozen=True, slots=True)
class ExportAccount:
    """Export all stored data of a user."""

    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID) -> AccountExport:
        """Return the export, or raise `Unauthenticated` if the account is erased."""
        async with self.database.read() as repositories:
            user = await repositories.users.find(user_id)
            if user is None:
                raise Unauthenticated
            return AccountExport(
                user=user,
                referred_by=await repositories.referrals.find_by_referred(user_id),
                codes=await repositories.codes.list_all(user_id),
                referrals=await _list_referrals(repositories, user_id),
                sessions=await repositories.sessions.list_all(user_id),
                login_sessions=await repositories.login_sessions.list_all(user_id),
                networks=await repositories.networks.list_all(user_id),
                profile=await repositories.profiles.find(user_id),
                as_of=self.clock.now(),
            )


async def _list_referrals(repositories: Repositories, user_id: UUID) -> list[ReferralListItem]:
    referrals: list[ReferralListItem] = []
    after: UUID | None = None
    while True:
        chunk = await repositories.referrals.list_page(
            user_id, status=None, after=after, limit=EXPORT_CHUNK_SIZE
        )
        referrals += chunk
        if len(chunk) < EXPORT_CHUNK_SIZE:
            return referrals
        after = chunk[-1].referral_id


@dataclass(frozen=True, slots=True)
class RecordExport:
    """Record that the operator exports all users, codes and referrals.

    Call it before the first line is read, and again with the SHA-256 digest of the file.
    """

    database: Database
    record_audit: RecordAudit

    async def __call__(self, digest: bytes | None = None) -> None:
        """Add the record of the start, or of the end if there is a digest."""
        action, subject = AuditAction.EXPORT_STARTED, ALL_DATA
        if digest is not None:
            action, subject = AuditAction.EXPORT_FINISHED, digest.hex()
        async with self.database.begin() as repositories:
            await self.record_audit(repositories, OPERATOR, action, subject)
