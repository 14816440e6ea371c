"""Links by mail: to confirm an address, to disown it, and for a new password.

The link shows that its user reads the mailbox. Confirming takes a proof as well that it is who
registered: otherwise the owner of a mailbox could confirm an account that somebody else made.

The token is made when the mail is written and goes nowhere else; its digest is stored. A mail that
is sent again has another one, and each of them is good until one was used.
"""

from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.email_links import OneTimeToken, Purpose
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import ConfirmationMail, JobContext, ResetMail
from referral.core.entities.mail import Mail
from referral.core.entities.passwords import accept_password
from referral.core.entities.users import Address, User
from referral.core.errors import EmailAlreadyVerified, TokenUnusable, TooManyRequests, WrongPassword
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.confirmation import Confirm
from referral.core.policies.idempotency import begin_once, finish_once
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import check_account, matches
from referral.core.ports.delivery import Mailer, MailReservations
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import PasswordHasher, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator, Links
from referral.core.use_cases.notifications import MailLimit, begin_mail, reset_quota, take_place

LIFETIMES = {Purpose.CONFIRM: timedelta(hours=24), Purpose.RESET: timedelta(hours=1)}
"""How long a link is good, from the moment its mail is written."""

CLAIM = timedelta(minutes=1)
"""How long one request has a link for itself; if it fails, or its process dies, others may try."""


@dataclass(frozen=True, slots=True)
class SendConfirmation:
    """Mail the link that confirms an address."""

    clock: Clock
    limit: MailLimit
    links: Links
    mailer: Mailer
    post_office: MailReservations
    secrets: TokenGenerator

    async def __call__(self, job: ConfirmationMail, run: JobContext) -> None:
        """Send it, unless it is confirmed; raises `Later` when the address had enough mails."""
        token, kept = _make_token(self, job.user_id, Purpose.CONFIRM)
        user = await begin_mail(self, run, job.user_id, kept, counts=not job.counted)
        if user is None:
            return
        facts = {"email": user.email, "link": self.links.confirm(token)}
        await self.mailer.send(Mail(run.id, user.mailbox, user.locale, "confirm", facts))


@dataclass(frozen=True, slots=True)
class SendReset:
    """Mail the link that sets a new password."""

    clock: Clock
    database: Database
    links: Links
    mailer: Mailer
    secrets: TokenGenerator

    async def __call__(self, job: ResetMail, run: JobContext) -> None:
        """Send it, if there is such a user and nobody shut them out."""
        async with self.database.begin() as records:
            user = await records.users.get(job.user_id)
            if user is None or user.blocked_at is not None:
                return
            token, kept = _make_token(self, user.id, Purpose.RESET)
            await records.one_time_tokens.add(kept)
        facts = {"email": user.email, "link": self.links.reset(token)}
        await self.mailer.send(Mail(run.id, user.mailbox, user.locale, "reset", facts))


@dataclass(frozen=True, slots=True)
class AskForConfirmation:
    """Have a fresh link mailed to oneself."""

    clock: Clock
    database: Database
    ids: IdGenerator
    limit: MailLimit

    async def __call__(self, user_id: UUID, attempt: IdempotentRequest[None] | None = None) -> None:
        """Queue the mail; raises `EmailAlreadyVerified` or `TooManyRequests`."""
        async with self.database.begin() as records:
            await begin_once(records, self.clock, attempt)
            user = check_account(await records.users.get(user_id))
            if user.email_verified:
                raise EmailAlreadyVerified
            wait = await take_place(self, records, self.ids.new(), user.email_key)
            if wait is not None:
                raise TooManyRequests(retry_after=wait)
            await records.jobs.enqueue(ConfirmationMail(user_id, counted=True))
            await finish_once(records, self.clock, attempt, None, user_id)


@dataclass(frozen=True, slots=True)
class InspectLink:
    """Show whose link it is; that does not use the link up."""

    clock: Clock
    database: Database
    secrets: TokenGenerator

    async def __call__(self, token: str, purpose: Purpose) -> User:
        """Return the user, or raise `TokenUnusable`."""
        digest = self.secrets.digest(token)
        async with self.database.read() as records:
            return await _find(records, digest, purpose, self.clock.now())


@dataclass(frozen=True, slots=True)
class ConfirmEmail:
    """Confirm an address: by its link, and as the user who registered."""

    login_throttle: LoginThrottle
    clear: InvalidateLookup
    clock: Clock
    confirm: Confirm
    database: Database
    inspect: InspectLink
    passwords: PasswordHasher
    secrets: TokenGenerator

    async def __call__(
        self, token: str, *, caller: UUID | None, password: str | None, address: str
    ) -> None:
        """Confirm the address; `caller` is who is signed in, `address` the caller's client IP.

        Raises `TokenUnusable`, `TooManyRequests`, or `WrongPassword` when neither the caller is
        the user nor the password theirs; the link is good for another attempt then.
        """
        user = await self.inspect(token, Purpose.CONFIRM)
        if caller != user.id:
            await self._check_password(user, password, address)
        async with self.database.begin() as records:
            digest, now = self.secrets.digest(token), self.clock.now()
            locked = await _use(records, digest, Purpose.CONFIRM, now)
            if caller != user.id and locked.password_hash != user.password_hash:
                raise WrongPassword(field="password")
            owners = await self.confirm(records, locked)
        await self.clear(*owners)

    async def _check_password(self, user: User, password: str | None, address: str) -> None:
        if password is None:
            detail = "Send the password of this account, or sign in to it first."
            raise WrongPassword(detail, field="password")
        await self.login_throttle.count(user.email_key, address)
        if not await matches(self.passwords, user, password):
            raise WrongPassword(field="password")


@dataclass(frozen=True, slots=True)
class DisownEmail:
    """Erase an unconfirmed account for the owner of its mailbox, who did not make it."""

    clear: InvalidateLookup
    clock: Clock
    database: Database
    remove: RemoveAccount
    secrets: TokenGenerator

    async def __call__(self, token: str) -> None:
        """Erase the account and free the address, or raise `TokenUnusable`."""
        digest = self.secrets.digest(token)
        async with self.database.begin() as records:
            user = await _use(records, digest, Purpose.CONFIRM, self.clock.now())
            owners = await self.remove(records, user)
            # Otherwise the mails to the account would keep their owner's own from arriving.
            await records.mails.forget(user.email_key)
        await self.clear(*owners)


@dataclass(frozen=True, slots=True)
class ForgotPassword:
    """Have a link for a new password mailed, to whoever has the address."""

    addresses: EmailParser
    clock: Clock
    database: Database
    ids: IdGenerator
    limit: MailLimit

    async def __call__(self, email: str, attempt: IdempotentRequest[None] | None = None) -> None:
        """Queue the mail, unless the address had its share of them; nobody is told which."""
        key = self.addresses.parse(email).canonical
        async with self.database.begin() as records:
            await begin_once(records, self.clock, attempt)
            wait = await take_place(self, records, self.ids.new(), reset_quota(key))
            user = await records.users.by_email(key)
            if wait is None:
                # A job about nobody takes the same time as one about somebody.
                await records.jobs.enqueue(ResetMail(user.id if user else self.ids.new()))
            await finish_once(records, self.clock, attempt, None, user.id if user else None)


@dataclass(frozen=True, slots=True)
class ResetPassword:
    """Take a link in place of the current password, and end every session.

    The address counts as confirmed from then on, since the mail was read.
    """

    clear: InvalidateLookup
    clock: Clock
    common_passwords: Container[str]
    confirm: Confirm
    database: Database
    passwords: PasswordHasher
    secrets: TokenGenerator

    async def __call__(self, token: str, wanted: str) -> None:
        """Set the password, or raise `TokenUnusable`, or `WeakPassword`, which uses no link up."""
        digest = self.secrets.digest(token)
        async with self.database.read() as records:
            user = await _find(records, digest, Purpose.RESET, self.clock.now())
        address = Address(user.email, user.email_key)
        password = accept_password(wanted, address, self.common_passwords, field="new_password")
        until = await self._claim(digest)
        try:
            await self._store(digest, await self.passwords.hash(password))
        except BaseException:
            async with self.database.begin() as records:
                await records.one_time_tokens.release(digest, until)
            raise

    async def _claim(self, digest: bytes) -> datetime:
        """Keep other requests from the link, so that one link costs one hash at a time."""
        now = self.clock.now()
        until = now + CLAIM
        async with self.database.begin() as records:
            if not await records.one_time_tokens.claim(digest, Purpose.RESET, now, until):
                raise TokenUnusable(field="token")
        return until

    async def _store(self, digest: bytes, hashed: str) -> None:
        async with self.database.begin() as records:
            user = await _use(records, digest, Purpose.RESET, self.clock.now())
            owners = await self._save(records, replace(user, password_hash=hashed))
            await records.sessions.end_all(user.id)
        await self.clear(*owners)

    async def _save(self, records: Repositories, user: User) -> list[User]:
        if not user.email_verified:
            return await self.confirm(records, user)
        await records.users.save(user)
        return []


async def _find(records: Repositories, digest: bytes, purpose: Purpose, now: datetime) -> User:
    """Return whose link it is, or raise `TokenUnusable`; that does not use the link up."""
    user_id = await records.one_time_tokens.find(digest, purpose, now)
    return _check(await records.users.get(user_id) if user_id else None, purpose)


def _check(user: User | None, purpose: Purpose) -> User:
    """Return the user of a link, or raise `TokenUnusable`.

    A mail that was written while the address was confirmed leaves a link for a confirmed account.
    """
    if user is None or user.blocked_at is not None:
        raise TokenUnusable(field="token")
    if purpose is Purpose.CONFIRM and user.email_verified:
        raise TokenUnusable(field="token")
    return user


async def _use(records: Repositories, digest: bytes, purpose: Purpose, now: datetime) -> User:
    """Use a link up; the account is held first, as by an erasure, which takes links away.

    Links of a blocked account are good for nothing for as long as it is blocked.
    """
    user_id = await records.one_time_tokens.find(digest, purpose, now)
    user = _check(await records.users.lock(user_id) if user_id else None, purpose)
    if await records.one_time_tokens.use(digest, purpose, now) is None:
        raise TokenUnusable(field="token")
    return user


def _make_token(
    sender: SendConfirmation | SendReset, user_id: UUID, purpose: Purpose
) -> tuple[str, OneTimeToken]:
    """Make up a token; return it, and what is kept of it."""
    token = sender.secrets.new()
    expires_at = sender.clock.now() + LIFETIMES[purpose]
    return token, OneTimeToken(sender.secrets.digest(token), user_id, purpose, expires_at)
