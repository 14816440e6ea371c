"""Links by mail, which prove that an address is one's own: to confirm it, and for a new password.

The token is made when the mail is written and goes nowhere else; its digest is stored. A mail that
is sent again has another one, and each of them is good until one was used.
"""

from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.attempts import begin_once, finish_once
from referral.core.errors import (
    EmailAlreadyVerified,
    TokenUnusable,
    TooManyRequests,
    Unauthenticated,
)
from referral.core.jobs import ConfirmationMail, ReferralMail, ResetMail, Run, WelcomeMail
from referral.core.mail import MailLimit, begin_mail, reset_quota, take_place
from referral.core.model import (
    Address,
    Attempt,
    Mail,
    OneTimeToken,
    Purpose,
    User,
    check_password,
    normal_password,
)
from referral.core.ports import (
    Addresses,
    Clock,
    Database,
    Ids,
    Links,
    Mailer,
    Passwords,
    PostOffice,
    Records,
    Secrets,
)

LIFETIMES = {Purpose.CONFIRM: timedelta(hours=24), Purpose.RESET: timedelta(hours=1)}
"""How long a link is good, from the moment its mail is written."""


@dataclass(frozen=True, slots=True)
class SendConfirmation:
    """Mail the link that confirms an address."""

    clock: Clock
    limit: MailLimit
    links: Links
    mailer: Mailer
    post_office: PostOffice
    secrets: Secrets

    async def __call__(self, job: ConfirmationMail, run: Run) -> None:
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
    secrets: Secrets

    async def __call__(self, job: ResetMail, run: Run) -> None:
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
    ids: Ids
    limit: MailLimit

    async def __call__(self, user_id: UUID, attempt: Attempt[None] | None = None) -> None:
        """Queue the mail; raises `EmailAlreadyVerified` or `TooManyRequests`."""
        async with self.database.begin() as records:
            await begin_once(records, self.clock, attempt)
            user = await records.users.get(user_id)
            if user is None:
                raise Unauthenticated
            if user.email_verified:
                raise EmailAlreadyVerified
            wait = await take_place(self, records, self.ids.new(), user.email_key)
            if wait is not None:
                raise TooManyRequests(retry_after=wait)
            await records.jobs.enqueue(ConfirmationMail(user_id, counted=True))
            await finish_once(records, self.clock, attempt, None, user_id)


@dataclass(frozen=True, slots=True)
class ConfirmEmail:
    """Take a link as proof that the address is its user's, and let the referral count."""

    clock: Clock
    database: Database
    secrets: Secrets

    async def __call__(self, token: str) -> None:
        """Confirm the address, or raise `TokenUnusable`."""
        digest, now = self.secrets.digest(token), self.clock.now()
        async with self.database.begin() as records:
            user = await _use(records, digest, Purpose.CONFIRM, now)
            await records.users.save(replace(user, email_verified=True))
            await records.jobs.enqueue(WelcomeMail(user.id))
            referral_id = await records.referrals.confirm(user.id)
            if referral_id is not None:
                await records.jobs.enqueue(ReferralMail(referral_id))


@dataclass(frozen=True, slots=True)
class ForgotPassword:
    """Have a link for a new password mailed, to whoever has the address."""

    addresses: Addresses
    clock: Clock
    database: Database
    ids: Ids
    limit: MailLimit

    async def __call__(self, email: str, attempt: Attempt[None] | None = None) -> None:
        """Queue the mail; raises `TooManyRequests`, for addresses without an account as well."""
        key = self.addresses.parse(email).canonical
        async with self.database.begin() as records:
            await begin_once(records, self.clock, attempt)
            wait = await take_place(self, records, self.ids.new(), reset_quota(key))
            if wait is not None:
                raise TooManyRequests(retry_after=wait)
            user = await records.users.by_email(key)
            # A job about nobody takes the same time as one about somebody.
            await records.jobs.enqueue(ResetMail(user.id if user else self.ids.new()))
            await finish_once(records, self.clock, attempt, None, user.id if user else None)


@dataclass(frozen=True, slots=True)
class ResetPassword:
    """Take a link in place of the current password, and end every session."""

    clock: Clock
    common_passwords: Container[str]
    database: Database
    passwords: Passwords
    secrets: Secrets

    async def __call__(self, token: str, wanted: str) -> None:
        """Set the password, or raise `TokenUnusable`, or `WeakPassword`, which uses no link up."""
        digest = self.secrets.digest(token)
        async with self.database.read() as records:
            user_id = await records.one_time_tokens.find(digest, Purpose.RESET, self.clock.now())
            user = user_id and await records.users.get(user_id)
        if not user:
            raise TokenUnusable(pointer="/token")
        password = normal_password(wanted)
        check_password(password, Address(user.email, user.email_key), self.common_passwords)
        await self._store(digest, await self.passwords.hash(password))

    async def _store(self, digest: bytes, hashed: str) -> None:
        async with self.database.begin() as records:
            user = await _use(records, digest, Purpose.RESET, self.clock.now())
            await records.users.save(replace(user, password_hash=hashed))
            await records.sessions.end_all(user.id)


async def _use(records: Records, digest: bytes, purpose: Purpose, now: datetime) -> User:
    """Use a link up; the account is held first, as by an erasure, which takes links away."""
    user_id = await records.one_time_tokens.find(digest, purpose, now)
    user = user_id and await records.users.lock(user_id)
    if not user or await records.one_time_tokens.use(digest, purpose, now) is None:
        raise TokenUnusable(pointer="/token")
    return user


def _make_token(
    sender: SendConfirmation | SendReset, user_id: UUID, purpose: Purpose
) -> tuple[str, OneTimeToken]:
    """Make up a token; return it, and what is kept of it."""
    token = sender.secrets.new()
    expires_at = sender.clock.now() + LIFETIMES[purpose]
    return token, OneTimeToken(sender.secrets.digest(token), user_id, purpose, expires_at)
