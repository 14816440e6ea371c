"""Registration and accounts."""

import asyncio
from collections.abc import Container
from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.account_view import MAX_RECENT_REFERRALS, AccountView
from referral.core.entities.audit import OPERATOR, Actor, AuditAction, validated_reason
from referral.core.entities.events import EventType, registration_events, user_event
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import ConfirmationMailJob, Job, VerifyEmailJob
from referral.core.entities.passwords import validate_new_password
from referral.core.entities.referrals import ReferralVisibility
from referral.core.entities.users import EmailAddress, EmailConfirmationPolicy, Locale, Role, User
from referral.core.errors import InvalidRequest, NotFound, Unauthenticated
from referral.core.policies.attribution import CreditReferrer
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.email_confirmation import jobs_after_confirmation
from referral.core.policies.email_deliverability import VerifyEmailAtSignup
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import lock_account
from referral.core.policies.risk_assessment import RecordNetwork
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel, Repositories
from referral.core.ports.security import PasswordHasher, UnsubscribeTokens
from referral.core.ports.system import Clock, IdGenerator
from referral.core.ports.third_parties import Enrichment


@dataclass(frozen=True, slots=True)
class NewAccount:
    """The data of a registration.

    Only the operator creates admins; their addresses are not verified. `client_ip` is that of the
    user, None for a command of the operator.
    """

    email: str
    password: str
    referral_code: str | None = None
    locale: Locale = Locale.EN
    role: Role = Role.MEMBER
    client_ip: str | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """Create an account and credit the referrer, in one transaction."""

    email_parser: EmailParser
    invalidate_lookup: InvalidateLookup
    clock: Clock
    common_passwords: Container[str]
    credit_referrer: CreditReferrer
    database: Database
    enrichment: Enrichment | None
    id_generator: IdGenerator
    password_hasher: PasswordHasher
    record_audit: RecordAudit
    record_events: RecordEvents
    record_network: RecordNetwork
    verify_at_signup: VerifyEmailAtSignup
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(
        self, new_account: NewAccount, idempotent_request: IdempotentRequest[User] | None = None
    ) -> User:
        """Return the new user.

        Raises `EmailTaken`, `EmailUndeliverable`, `ReferralCodeUnusable` or `WeakPassword`.
        """
        email = self.email_parser.parse(new_account.email)
        password = validate_new_password(
            new_account.password, email, self.common_passwords, field="password"
        )
        # Concurrent, since both are slow: hashing takes CPU time, verification a network call.
        password_hash, user = await asyncio.gather(
            self.password_hasher.hash(password),
            self.verify_at_signup(self._user(email, new_account)),
        )
        user = replace(user, password_hash=password_hash)
        owners: list[User] = []
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            await repositories.users.add(user)
            # Before the code is locked: all registrations take their locks in this order.
            await self.record_network.of_registration(
                repositories,
                user,
                new_account.client_ip,
                has_referrer=new_account.referral_code is not None,
            )
            if user.role is Role.ADMIN:
                await self.record_audit(repositories, OPERATOR, AuditAction.USER_CREATED, user.id)
            if new_account.referral_code is None:
                await self.record_events(repositories, *registration_events(user))
            await repositories.jobs.enqueue(*self._jobs(user))
            if new_account.referral_code is not None:
                owners = await self.credit_referrer(
                    repositories,
                    user,
                    new_account.referral_code,
                    registers=True,
                    client_ip=new_account.client_ip,
                )
            await save_idempotent_response(
                repositories, self.clock, idempotent_request, user, user.id
            )
        await self.invalidate_lookup(*owners)
        return user

    def _jobs(self, user: User) -> list[Job]:
        jobs: list[Job] = [ConfirmationMailJob(user.id)]
        if self.confirmation_policy.is_satisfied_by(user):
            jobs = jobs_after_confirmation(user, self.enrichment)
        if self.verify_at_signup.needs_recheck(user):
            jobs.append(VerifyEmailJob(user.id))
        return jobs

    def _user(self, email: EmailAddress, new_account: NewAccount) -> User:
        now, is_admin = self.clock.now(), new_account.role is Role.ADMIN
        return User(
            id=self.id_generator.new(),
            email=email.original,
            email_key=email.email_key,
            password_hash="",
            role=new_account.role,
            locale=new_account.locale,
            email_verified=is_admin,
            notify_on_referral=True,
            created_at=now,
            confirm_by=None if is_admin else self.confirmation_policy.deadline(now),
        )


@dataclass(frozen=True, slots=True)
class ShowAccount:
    """Return a user's own account."""

    clock: Clock
    read_model: ReadModel
    visibility: ReferralVisibility

    async def __call__(self, user_id: UUID) -> AccountView:
        """Return the account, or raise `Unauthenticated` if it is erased.

        The referrer's e-mail is included under `open` visibility only: otherwise a published code
        would disclose its owner's address to everyone who registers with it.
        """
        account = await self.read_model.find_account(
            user_id, MAX_RECENT_REFERRALS, self.clock.now()
        )
        if account is None:
            raise Unauthenticated
        if account.referrer is None or self.visibility is ReferralVisibility.OPEN:
            return account
        return replace(account, referrer=replace(account.referrer, email=None))


@dataclass(frozen=True, slots=True)
class AccountUpdate:
    """The changes to an account; None leaves a field unchanged."""

    locale: Locale | None
    notify_on_referral: bool | None


@dataclass(frozen=True, slots=True)
class UpdateAccount:
    """Change the locale, or whether the user is notified of new referrals."""

    database: Database

    async def __call__(self, user_id: UUID, update: AccountUpdate) -> None:
        """Store the change, or raise `AccountBlocked` or `Unauthenticated`."""
        async with self.database.begin() as repositories:
            user = await lock_account(repositories, user_id)
            locale, notify = update.locale, update.notify_on_referral
            changed = replace(
                user,
                locale=user.locale if locale is None else locale,
                notify_on_referral=user.notify_on_referral if notify is None else notify,
            )
            await repositories.users.save(changed)


@dataclass(frozen=True, slots=True)
class InspectUnsubscribeToken:
    """Return the user of an unsubscribe token."""

    database: Database
    unsubscribe_tokens: UnsubscribeTokens

    async def __call__(self, token: str) -> User:
        """Return the user; raises `NotFound` for an invalid token."""
        user_id = self.unsubscribe_tokens.verify(token)
        async with self.database.read() as repositories:
            user = await repositories.users.find(user_id)
        if user is None:
            raise NotFound
        return user


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Turn off referral notifications for the user of an unsubscribe token."""

    database: Database
    unsubscribe_tokens: UnsubscribeTokens

    async def __call__(self, token: str) -> None:
        """Turn them off; raises `NotFound` for an invalid token."""
        async with self.database.begin() as repositories:
            user = await repositories.users.lock(self.unsubscribe_tokens.verify(token))
            if user is None:
                raise NotFound
            await repositories.users.save(replace(user, notify_on_referral=False))


@dataclass(frozen=True, slots=True)
class BlockAccount:
    """Block or unblock an account.

    Blocking revokes all sessions. A blocked user cannot log in, the user's codes are neither found
    nor usable, and the e-mail address stays taken.
    """

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database
    record_audit: RecordAudit
    record_events: RecordEvents

    async def __call__(
        self, user_id: UUID, actor: Actor, reason: str | None = None, *, undo: bool = False
    ) -> User:
        """Return the account, changed or as it was; raises `InvalidRequest` or `NotFound`."""
        reason = None if reason is None else validated_reason(reason)
        async with self.database.begin() as repositories:
            user = await repositories.users.lock(user_id)
            if user is None:
                raise NotFound("No user has this id.")
            if (user.blocked_at is not None) is undo:
                user = await self._save(repositories, user, undo=undo)
                action = AuditAction.USER_UNBLOCKED if undo else AuditAction.USER_BLOCKED
                await self.record_audit(repositories, actor, action, user.id, reason)
        await self.invalidate_lookup(user)
        return user

    async def _save(self, repositories: Repositories, user: User, *, undo: bool) -> User:
        # Serialize with registrations that use the code: they commit first, or see the block.
        await repositories.codes.lock_enabled(user.id)
        now = self.clock.now()
        changed = user.unblocked(now) if undo else replace(user, blocked_at=now)
        event_type = EventType.USER_UNBLOCKED if undo else EventType.USER_BLOCKED
        await self.record_events(repositories, user_event(event_type, changed, now))
        await repositories.users.save(changed)
        await repositories.sessions.revoke_all(user.id)
        return changed


@dataclass(frozen=True, slots=True)
class FindAccount:
    """Find an account for the operator."""

    database: Database
    email_parser: EmailParser

    async def __call__(self, id_or_email: str) -> User:
        """Return the account; raises `InvalidRequest` or `NotFound`."""
        async with self.database.read() as repositories:
            if "@" in id_or_email:
                email_key = self.email_parser.parse(id_or_email).email_key
                user = await repositories.users.find_by_email(email_key)
            else:
                user = await repositories.users.find(_parse_user_id(id_or_email))
        if user is None:
            raise NotFound("No user has this e-mail address or id.")
        return user


def _parse_user_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest("Send an e-mail address or the id of a user.") from None
