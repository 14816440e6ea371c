"""Fakes of the repositories of users, codes, referrals and sessions, with their constraints."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.referrals import Referral, ReferralListItem, ReferralStatus
from referral.core.entities.sessions import RefreshToken, Session
from referral.core.entities.users import User
from referral.core.errors import (
    ActiveCodeExists,
    AlreadyReferred,
    CodeTaken,
    EmailTaken,
    ExternalIdTaken,
)
from tests.support.fakes.tables import Tables

T = TypeVar("T")


@dataclass(frozen=True)
class FakeUserRepository:
    """Accounts in a dict."""

    tables: Tables

    async def add(self, user: User) -> None:
        if await self.find_by_email(user.email_key) is not None:
            self.tables.reject(EmailTaken(field="email"))
        self._check_external_id(user)
        self.tables.users[user.id] = user

    async def find(self, user_id: UUID) -> User | None:
        return None if user_id in self.tables.erased_users else self.tables.users.get(user_id)

    async def find_by_email(self, email_key: str) -> User | None:
        matching = _first(
            user for user in self.tables.users.values() if user.email_key == email_key
        )
        return None if matching is None or not email_key else matching

    async def find_costliest_hash(self) -> str | None:
        costs = self.tables.password_costs
        return (
            self.tables.users[max(costs, key=lambda each: costs[each])].password_hash
            if costs
            else None
        )

    async def find_by_external_id(self, external_id: str) -> User | None:
        return _first(
            user for user in self.tables.users.values() if user.external_id == external_id
        )

    async def lock(self, user_id: UUID) -> User | None:
        return await self.find(user_id)

    async def save(self, user: User) -> None:
        if await self.find_by_email(user.email_key) not in {None, self.tables.users[user.id]}:
            self.tables.reject(EmailTaken(field="email"))
        self._check_external_id(user)
        created_at = self.tables.users[user.id].created_at
        if user.password_hash != self.tables.users[user.id].password_hash:
            self.tables.password_costs.pop(user.id, None)
        self.tables.users[user.id] = replace(user, created_at=created_at)

    async def lock_unconfirmed(self, now: datetime) -> User | None:
        return _first(
            user
            for user in self.tables.users.values()
            if user.confirm_by is not None
            and user.confirm_by <= now
            and not (user.email_verified or user.blocked_at or user.id in self.tables.erased_users)
        )

    async def clear_confirmation_deadlines(self) -> bool:
        for user in list(self.tables.users.values()):
            self.tables.users[user.id] = replace(user, confirm_by=None)
        return False

    async def erase(self, user_id: UUID, now: datetime) -> None:
        user = self.tables.users[user_id]
        self.tables.users[user_id] = replace(
            user,
            email="",
            email_key="",
            password_hash="",
            confirm_by=None,
            external_id=None,
            deliverability=Deliverability.UNKNOWN,
        )
        self.tables.erased_users[user_id] = now
        self.tables.password_costs.pop(user_id, None)

    def _check_external_id(self, user: User) -> None:
        others = (other for other in self.tables.users.values() if other.id != user.id)
        if user.external_id in {other.external_id for other in others} - {None}:
            self.tables.reject(ExternalIdTaken())


@dataclass(frozen=True)
class FakeCodeRepository:
    """Codes in a dict; deleted ones stay, and another dict holds the times of the deletions."""

    tables: Tables

    async def add(self, code: Code) -> None:
        if any(
            _normal_text(other.text) == _normal_text(code.text)
            for other in self.tables.codes.values()
        ):
            self.tables.reject(CodeTaken(field="code"))
        if code.enabled and self._enabled_of(code.user_id):
            self.tables.reject(ActiveCodeExists())
        self.tables.require(is_satisfied=code.user_id in self.tables.users, constraint="user_id")
        self._store(code)

    async def lock(self, user_id: UUID, code_id: UUID) -> Code | None:
        return await self.find(user_id, code_id)

    async def lock_enabled_by_text(self, text: str) -> Code | None:
        code = self._by_text(text)
        return code if code is not None and code.enabled else None

    async def lock_enabled(self, user_id: UUID) -> None:
        """Do nothing: the transactions are serial."""

    async def count_use(self, code_id: UUID, now: datetime) -> bool:
        code = self.tables.codes.get(code_id)
        if code is None or not code.is_active(now) or not self._owner_not_blocked(code):
            return False
        self._store(replace(code, uses=code.uses + 1))
        return True

    async def revert_use(self, code_id: UUID, now: datetime) -> Code | None:
        code = self.tables.codes[code_id]
        if code.expires_at <= now and code.is_exhausted:
            await self.report_expiry(code_id)
        self.tables.require(is_satisfied=code.uses > 0, constraint="uses")
        self._store(replace(code, uses=code.uses - 1))
        return None if code_id in self.tables.deleted_codes else self.tables.codes[code_id]

    async def restore_use(self, code_id: UUID) -> Code | None:
        code = self.tables.codes[code_id]
        self._store(replace(code, uses=code.uses + 1))
        return None if code_id in self.tables.deleted_codes else self.tables.codes[code_id]

    async def save(self, code: Code) -> None:
        stored = self.tables.codes[code.id]
        others = [other for other in self._enabled_of(code.user_id) if other.id != code.id]
        free = not (code.enabled and others)
        self.tables.require(is_satisfied=free, constraint="uq_codes_enabled")
        live = not (code.enabled and code.id in self.tables.deleted_codes)
        self.tables.require(is_satisfied=live, constraint="deleted_disabled")
        if code.expires_at != stored.expires_at:
            self.tables.expiries_reported_until.pop(code.id, None)
        self._store(replace(code, uses=stored.uses, text=stored.text))

    async def delete(self, code_id: UUID, now: datetime) -> None:
        self.tables.deleted_codes[code_id] = now
        self._store(self.tables.codes[code_id].deactivated())

    async def delete_all(self, user_id: UUID, now: datetime) -> None:
        for code in self._owned_by(user_id):
            await self.delete(code.id, now)

    async def lock_all(self, user_id: UUID, other_code_id: UUID | None) -> list[Code]:
        """Return the codes without a lock: the transactions are serial."""
        del other_code_id
        return self._owned_by(user_id)

    async def retire(self, user_id: UUID, *, only_spent_at: datetime | None = None) -> Code | None:
        for code in self._enabled_of(user_id):
            if only_spent_at is None or not code.is_active(only_spent_at):
                self._store(code.deactivated())
                return code.deactivated()
        return None

    async def report_expiry(self, code_id: UUID) -> bool:
        expires_at = self.tables.codes[code_id].expires_at
        reported_until = self.tables.expiries_reported_until.get(code_id)
        if reported_until is not None and reported_until >= expires_at:
            return False
        self.tables.expiries_reported_until[code_id] = expires_at
        return True

    async def report_expiries(self, now: datetime, limit: int) -> list[Code]:
        codes = self.tables.codes.values()
        expired = [code for code in codes if code.enabled and code.expires_at <= now]
        expired.sort(key=lambda code: code.expires_at)
        reported: list[Code] = []
        for code in expired:
            if len(reported) < limit and await self.report_expiry(code.id):
                reported.append(code)
        return reported

    async def find(self, user_id: UUID, code_id: UUID) -> Code | None:
        return _first(code for code in self._owned_by(user_id) if code.id == code_id)

    async def list_all(self, user_id: UUID) -> list[Code]:
        return sorted(self._owned_by(user_id), key=lambda code: code.id, reverse=True)

    async def find_active(self, user_id: UUID, now: datetime) -> Code | None:
        return _first(code for code in self._owned_by(user_id) if code.is_active(now))

    async def list_page(
        self,
        user_id: UUID,
        now: datetime,
        *,
        status: CodeStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[Code]:
        matching = [
            code
            for code in self._owned_by(user_id)
            if status in {None, code.status(now)} and (after is None or code.id < after)
        ]
        return sorted(matching, key=lambda code: code.id, reverse=True)[:limit]

    def _by_text(self, text: str) -> Code | None:
        self.tables.check_text(text)
        return _first(
            code for code in self._not_deleted() if _normal_text(code.text) == _normal_text(text)
        )

    def _owner_not_blocked(self, code: Code) -> bool:
        return self.tables.users[code.user_id].blocked_at is None

    def _store(self, code: Code) -> None:
        positive = code.max_uses is None or code.max_uses > 0
        self.tables.require(is_satisfied=positive, constraint="uses")
        self.tables.codes[code.id] = code

    def _not_deleted(self) -> list[Code]:
        codes = self.tables.codes.values()
        return [code for code in codes if code.id not in self.tables.deleted_codes]

    def _owned_by(self, user_id: UUID) -> list[Code]:
        return [code for code in self._not_deleted() if code.user_id == user_id]

    def _enabled_of(self, user_id: UUID) -> list[Code]:
        return [code for code in self._owned_by(user_id) if code.enabled]


@dataclass(frozen=True)
class FakeReferralRepository:
    """Referrals in a dict."""

    tables: Tables

    async def add(self, referral: Referral) -> None:
        require, users = self.tables.require, self.tables.users
        known = {referral.referrer_id, referral.referred_id} <= users.keys()
        known = known and referral.code_id in {None, *self.tables.codes}
        require(is_satisfied=known, constraint="foreign key")
        require(is_satisfied=referral.referrer_id != referral.referred_id, constraint="not_oneself")
        if await self.find_by_referred(referral.referred_id) is not None:
            self.tables.reject(AlreadyReferred())
        self.tables.referrals[referral.id] = referral
        if referral.status is not ReferralStatus.PENDING:
            self.tables.decisions[referral.id, referral.status] = referral.joined_at

    async def lock_pending(self, user_id: UUID) -> Referral | None:
        return _first(row for row in self._pending() if row.referred_id == user_id)

    async def lock_overdue(self, joined_before: datetime) -> Referral | None:
        return _first(
            row
            for row in self._pending()
            if row.expires and not row.held and row.joined_at <= joined_before
        )

    async def lock(self, referral_id: UUID) -> Referral | None:
        return self.tables.referrals.get(referral_id)

    async def save_decision(self, referral: Referral) -> None:
        self.tables.referrals[referral.id] = replace(
            self.tables.referrals[referral.id],
            status=referral.status,
            reason=referral.reason,
            decided_at=referral.decided_at,
            held=False,
        )
        assert referral.decided_at is not None
        self.tables.decisions.setdefault((referral.id, referral.status), referral.decided_at)

    async def set_status(self, referral_id: UUID, status: ReferralStatus, now: datetime) -> None:
        row = self.tables.referrals[referral_id]
        self.tables.referrals[referral_id] = replace(row, status=status, held=False)
        self.tables.decisions.setdefault((referral_id, status), now)

    async def save_risk(self, referral: Referral) -> None:
        stored = self.tables.referrals[referral.id]
        self.tables.referrals[referral.id] = replace(
            stored, held=referral.held, risk_signals=referral.risk_signals
        )

    async def find_by_referred(self, user_id: UUID) -> Referral | None:
        return _first(row for row in self.tables.referrals.values() if row.referred_id == user_id)

    async def list_page(
        self, user_id: UUID, *, status: ReferralStatus | None, after: UUID | None, limit: int
    ) -> list[ReferralListItem]:
        matching = [
            self._list_item(row)
            for row in self.tables.referrals.values()
            if row.referrer_id == user_id
            and status in {None, row.status}
            and (after is None or row.id < after)
        ]
        return sorted(matching, key=lambda joined: joined.referral_id, reverse=True)[:limit]

    async def assign_to_mail(
        self, referral_id: UUID, mail_id: UUID, *, include_unassigned: bool
    ) -> User | None:
        own = self.tables.referrals.get(referral_id)
        if own is None:
            return None
        for row in self.tables.referrals.values():
            mine = row.id == referral_id or (
                include_unassigned and row.referrer_id == own.referrer_id
            )
            if mine and row.id not in self.tables.notified_referrals:
                self.tables.notified_referrals[row.id] = mail_id
        reported = self.tables.notified_referrals[referral_id] == mail_id
        return await FakeUserRepository(self.tables).find(own.referrer_id) if reported else None

    async def list_by_mail(self, referrer_id: UUID, mail_id: UUID) -> list[ReferralListItem]:
        rows = sorted(self.tables.referrals.values(), key=lambda row: row.id)
        own = (row for row in rows if row.referrer_id == referrer_id)
        return [
            self._list_item(row)
            for row in own
            if self.tables.notified_referrals.get(row.id) == mail_id
        ]

    def _pending(self) -> list[Referral]:
        rows = self.tables.referrals.values()
        return [row for row in rows if row.status is ReferralStatus.PENDING]

    def _list_item(self, row: Referral) -> ReferralListItem:
        email = self.tables.users[row.referred_id].email or None
        return ReferralListItem(row.id, row.referred_id, email, row.status, row.code, row.joined_at)


@dataclass(frozen=True)
class FakeSessionRepository:
    """Sessions and their tokens in dicts."""

    tables: Tables

    async def add(self, session: Session) -> None:
        self.tables.require(is_satisfied=session.user_id in self.tables.users, constraint="user_id")
        self.tables.sessions[session.id] = session

    async def add_token(self, token: RefreshToken) -> None:
        known = token.session_id in self.tables.sessions
        self.tables.require(is_satisfied=known, constraint="session_id")
        self.tables.require(
            is_satisfied=token.digest not in self.tables.refresh_tokens, constraint="digest"
        )
        self.tables.refresh_tokens[token.digest] = token

    async def lock_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        token = self.tables.refresh_tokens.get(digest)
        return None if token is None else (self.tables.sessions[token.session_id], token)

    async def mark_used(self, token: RefreshToken, now: datetime) -> bool:
        tokens = self.tables.refresh_tokens
        if token.parent is not None:
            parent = tokens[token.parent]
            if parent.heir is not None:
                return False
            tokens[parent.digest] = replace(parent, heir=token.digest)
        tokens[token.digest] = replace(tokens[token.digest], used_at=now)
        return True

    async def prune(self, now: datetime) -> bool:
        ended = [one.id for one in self.tables.sessions.values() if one.expires_at <= now]
        for session_id in ended:
            await self.revoke(session_id)
        return False

    async def revoke(self, session_id: UUID) -> bool:
        found = self.tables.sessions.pop(session_id, None)
        ended = [
            token for token in self.tables.refresh_tokens.values() if token.session_id == session_id
        ]
        for token in ended:
            del self.tables.refresh_tokens[token.digest]
        for code in list(self.tables.authorization_codes.values()):
            if code.session_id == session_id:
                del self.tables.authorization_codes[code.digest]
        return found is not None

    async def find_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        return await self.lock_by_token(digest)

    async def revoke_all(self, user_id: UUID, *, except_id: UUID | None = None) -> None:
        for session in await self.list_all(user_id):
            if session.id != except_id:
                await self.revoke(session.id)
        for login_session in list(self.tables.login_sessions.values()):
            if login_session.user_id == user_id:
                del self.tables.login_sessions[login_session.digest]
        for code in list(self.tables.authorization_codes.values()):
            if code.user_id == user_id and code.session_id is None:
                del self.tables.authorization_codes[code.digest]

    async def find(self, session_id: UUID) -> Session | None:
        return self.tables.sessions.get(session_id)

    async def list_all(self, user_id: UUID) -> list[Session]:
        return [session for session in self.tables.sessions.values() if session.user_id == user_id]


def _normal_text(text: str) -> str:
    return text.upper()


def _first(rows: Iterable[T]) -> T | None:
    return next(iter(rows), None)
