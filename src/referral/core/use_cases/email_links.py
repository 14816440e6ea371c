"""E-mail links: to confirm an address, to disown it, and to reset a password.

A link proves access to the mailbox. Confirmation also requires a login or the password: otherwise
the mailbox's owner could confirm an account that somebody else created.

A repeated mail has another token. All tokens of a user for one purpose are valid until one of them
is used.
"""

from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import ConfirmationMailJob, PasswordResetMailJob
from referral.core.entities.passwords import validate_new_password
from referral.core.entities.users import User
from referral.core.errors import EmailAlreadyVerified, TokenUnusable, TooManyRequests, WrongPassword
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.email_confirmation import MarkEmailConfirmed
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.mail_quota import (
    ReserveSlotInTransaction,
    password_reset_quota,
)
from referral.core.policies.reauthentication import password_matches, require_active_account
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import PasswordHasher, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator

LINK_LOCK_TIMEOUT = timedelta(minutes=1)
"""How long a reset request reserves its link; the limit is for requests whose process crashed."""


@dataclass(frozen=True, slots=True)
class RequestConfirmationMail:
    """Enqueue a mail with a new confirmation link for the caller."""

    clock: Clock
    database: Database
    id_generator: IdGenerator
    reserve_slot: ReserveSlotInTransaction

    async def __call__(
        self, user_id: UUID, idempotent_request: IdempotentRequest[None] | None = None
    ) -> None:
        """Enqueue the mail; raises `EmailAlreadyVerified` or `TooManyRequests`."""
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            user = require_active_account(await repositories.users.find(user_id))
            if user.email_verified:
                raise EmailAlreadyVerified
            wait = await self.reserve_slot(repositories, self.id_generator.new(), user.email_key)
            if wait is not None:
                raise TooManyRequests(retry_after=wait)
            await repositories.jobs.enqueue(ConfirmationMailJob(user_id, counted=True))
            await save_idempotent_response(
                repositories, self.clock, idempotent_request, None, user_id
            )


@dataclass(frozen=True, slots=True)
class InspectLink:
    """Return the user of a link without consuming it."""

    clock: Clock
    database: Database
    token_generator: TokenGenerator

    async def __call__(self, token: str, purpose: TokenPurpose) -> User:
        """Return the user, or raise `TokenUnusable`."""
        digest = self.token_generator.digest(token)
        async with self.database.read() as repositories:
            return await _find(repositories, digest, purpose, self.clock.now())


@dataclass(frozen=True, slots=True)
class ConfirmEmail:
    """Confirm an address, by its link and a proof of who registered."""

    login_throttle: LoginThrottle
    invalidate_lookup: InvalidateLookup
    clock: Clock
    mark_email_confirmed: MarkEmailConfirmed
    database: Database
    inspect_link: InspectLink
    password_hasher: PasswordHasher
    token_generator: TokenGenerator

    async def __call__(
        self, token: str, *, caller_id: UUID | None, password: str | None, client_ip: str
    ) -> None:
        """Confirm the address; `caller_id` is the signed-in user, if any.

        Raises `TokenUnusable`, `TooManyRequests`, or `WrongPassword` if the user is neither signed
        in nor sent the right password; the link stays valid then.
        """
        user = await self.inspect_link(token, TokenPurpose.CONFIRM)
        if caller_id != user.id:
            await self._check_password(user, password, client_ip)
        async with self.database.begin() as repositories:
            digest, now = self.token_generator.digest(token), self.clock.now()
            locked = await _consume(repositories, digest, TokenPurpose.CONFIRM, now)
            if caller_id != user.id and locked.password_hash != user.password_hash:
                raise WrongPassword(field="password")
            owners = await self.mark_email_confirmed(repositories, locked)
        await self.invalidate_lookup(*owners)

    async def _check_password(self, user: User, password: str | None, client_ip: str) -> None:
        if password is None:
            detail = "Send the password of this account, or log in to it first."
            raise WrongPassword(detail, field="password")
        await self.login_throttle.hit(user.email_key, client_ip)
        if not await password_matches(self.password_hasher, user, password):
            raise WrongPassword(field="password")


@dataclass(frozen=True, slots=True)
class DisownEmail:
    """Erase an unconfirmed account at the request of its mailbox's owner, who did not create it."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database
    remove_account: RemoveAccount
    token_generator: TokenGenerator

    async def __call__(self, token: str) -> None:
        """Erase the account, so that the address is available again; raises `TokenUnusable`."""
        digest = self.token_generator.digest(token)
        async with self.database.begin() as repositories:
            user = await _consume(repositories, digest, TokenPurpose.CONFIRM, self.clock.now())
            owners = await self.remove_account(repositories, user, Actor.user(user.id))
            # The mails to this account must not count against a later account of the owner.
            await repositories.mail_quota.reset(user.email_key)
        await self.invalidate_lookup(*owners)


@dataclass(frozen=True, slots=True)
class RequestPasswordReset:
    """Enqueue a mail with a password reset link, if the address has an account."""

    email_parser: EmailParser
    clock: Clock
    database: Database
    id_generator: IdGenerator
    reserve_slot: ReserveSlotInTransaction

    async def __call__(
        self, email: str, idempotent_request: IdempotentRequest[None] | None = None
    ) -> None:
        """Enqueue the mail unless its quota is full; the caller cannot tell whether it was sent."""
        email_key = self.email_parser.parse(email).email_key
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            wait = await self.reserve_slot(
                repositories, self.id_generator.new(), password_reset_quota(email_key)
            )
            user = await repositories.users.find_by_email(email_key)
            if wait is None:
                # Enqueue a job for an unknown address too: the timing must not reveal accounts.
                await repositories.jobs.enqueue(
                    PasswordResetMailJob(user.id if user else self.id_generator.new())
                )
            await save_idempotent_response(
                repositories, self.clock, idempotent_request, None, user.id if user else None
            )


@dataclass(frozen=True, slots=True)
class ResetPassword:
    """Set a new password by a reset link, and revoke all sessions.

    This also confirms the address, as the link proves access to the mailbox.
    """

    invalidate_lookup: InvalidateLookup
    clock: Clock
    common_passwords: Container[str]
    mark_email_confirmed: MarkEmailConfirmed
    database: Database
    password_hasher: PasswordHasher
    record_audit: RecordAudit
    token_generator: TokenGenerator

    async def __call__(self, token: str, new_password: str) -> None:
        """Set the password; raises `TokenUnusable`, or `WeakPassword`: the link stays valid."""
        digest = self.token_generator.digest(token)
        async with self.database.read() as repositories:
            user = await _find(repositories, digest, TokenPurpose.RESET, self.clock.now())
        password = validate_new_password(
            new_password, user.email_address, self.common_passwords, field="new_password"
        )
        until = await self._acquire(digest)
        try:
            await self._store(digest, await self.password_hasher.hash(password))
        except BaseException:
            async with self.database.begin() as repositories:
                await repositories.one_time_tokens.release(digest, until)
            raise

    async def _acquire(self, digest: bytes) -> datetime:
        """Reserve the link, so that concurrent requests with it compute one hash only."""
        now = self.clock.now()
        until = now + LINK_LOCK_TIMEOUT
        async with self.database.begin() as repositories:
            if not await repositories.one_time_tokens.acquire(
                digest, TokenPurpose.RESET, now, until
            ):
                raise TokenUnusable(field="token")
        return until

    async def _store(self, digest: bytes, password_hash: str) -> None:
        async with self.database.begin() as repositories:
            user = await _consume(repositories, digest, TokenPurpose.RESET, self.clock.now())
            actor, action = Actor.user(user.id), AuditAction.PASSWORD_RESET
            await self.record_audit(repositories, actor, action, user.id)
            owners = await self._save(repositories, replace(user, password_hash=password_hash))
            await repositories.sessions.revoke_all(user.id)
        await self.invalidate_lookup(*owners)

    async def _save(self, repositories: Repositories, user: User) -> list[User]:
        if not user.email_verified:
            return await self.mark_email_confirmed(repositories, user)
        await repositories.users.save(user)
        return []


async def _find(
    repositories: Repositories, digest: bytes, purpose: TokenPurpose, now: datetime
) -> User:
    """Return the user of a link without consuming it; raises `TokenUnusable`."""
    user_id = await repositories.one_time_tokens.find_user_id(digest, purpose, now)
    return _check(await repositories.users.find(user_id) if user_id else None, purpose)


def _check(user: User | None, purpose: TokenPurpose) -> User:
    """Return the user of a link, or raise `TokenUnusable` for a blocked or missing one.

    A confirmation link is invalid once the address is confirmed. It may have been created
    concurrently with the confirmation.
    """
    if user is None or user.blocked_at is not None:
        raise TokenUnusable(field="token")
    if purpose is TokenPurpose.CONFIRM and user.email_verified:
        raise TokenUnusable(field="token")
    return user


async def _consume(
    repositories: Repositories, digest: bytes, purpose: TokenPurpose, now: datetime
) -> User:
    """Consume a link and return its locked user, or raise `TokenUnusable`.

    The account is locked before the token, in the same order as by an erasure. Links of a blocked
    account are unusable while it is blocked.
    """
    user_id = await repositories.one_time_tokens.find_user_id(digest, purpose, now)
    user = _check(await repositories.users.lock(user_id) if user_id else None, purpose)
    if await repositories.one_time_tokens.consume(digest, purpose, now) is None:
        raise TokenUnusable(field="token")
    return user
