"""What is mailed, to whom and when. No address gets more than so many mails in an hour."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from referral.core.entities.codes import Code
from referral.core.entities.email_links import OneTimeToken
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import CodeMail, JobContext, ReferralMail, WelcomeMail
from referral.core.entities.mail import Mail, MailReservationRequest
from referral.core.entities.users import User
from referral.core.errors import NoActiveCode, NotFound, RescheduleJob, TooManyRequests
from referral.core.policies.idempotency import begin_once, finish_once
from referral.core.policies.reauthentication import check_account
from referral.core.ports.delivery import Mailer, MailReservations
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import UnsubscribeTokens
from referral.core.ports.system import Clock, IdGenerator, Links

RESERVED = 1
"""How many places of the limit are kept for mails that the user asks for."""

LISTED = 50
"""How many of those who joined one notification names; it counts the others."""


@dataclass(frozen=True, slots=True)
class MailLimit:
    """How many mails one address may get in a time; `mails` is None where there is no limit."""

    mails: int | None
    within: timedelta


@dataclass(frozen=True, slots=True)
class MailActiveCode:
    """Mail a user the code in force, as asked for."""

    clock: Clock
    database: Database
    ids: IdGenerator
    limit: MailLimit

    async def __call__(self, user_id: UUID, attempt: IdempotentRequest[None] | None = None) -> None:
        """Queue the mail; raises `NoActiveCode`, or `TooManyRequests` for one too many."""
        now = self.clock.now()
        async with self.database.begin() as records:
            await begin_once(records, self.clock, attempt)
            user = check_account(await records.users.get(user_id))
            code = await records.codes.active(user_id, now)
            if code is None:
                raise NoActiveCode
            wait = await take_place(self, records, self.ids.new(), user.email_key)
            if wait is not None:
                raise TooManyRequests(retry_after=wait)
            await records.jobs.enqueue(CodeMail(user_id, code.id))
            await finish_once(records, self.clock, attempt, None, user_id)


@dataclass(frozen=True, slots=True)
class SendCode:
    """Mail a code to its owner, with a picture of its link."""

    clock: Clock
    database: Database
    links: Links
    mailer: Mailer

    async def __call__(self, job: CodeMail, run: JobContext) -> None:
        """Send the mail, unless the code has gone out of force meanwhile."""
        now = self.clock.now()
        async with self.database.read() as records:
            user = await records.users.get(job.user_id)
            code = await records.codes.get(job.user_id, job.code_id)
        if user is not None and code is not None and code.is_active(now):
            await self.mailer.send(self._mail(run, user, code))

    def _mail(self, run: JobContext, user: User, code: Code) -> Mail:
        link = self.links.share(code.text)
        facts = {"code": code.text, "expires_at": code.expires_at, "link": link}
        left = None if code.max_uses is None else code.max_uses - code.uses
        return Mail(run.id, user.mailbox, user.locale, "code", facts | {"left": left}, qr=link)


@dataclass(frozen=True, slots=True)
class SendWelcome:
    """Greet a new user."""

    clock: Clock
    limit: MailLimit
    links: Links
    mailer: Mailer
    post_office: MailReservations

    async def __call__(self, job: WelcomeMail, run: JobContext) -> None:
        """Send the mail; raises `RescheduleJob` when the address has had its share of mails."""
        user = await begin_mail(self, run, job.user_id)
        if user is None:
            return
        facts = {"email": user.email, "docs": self.links.docs()}
        await self.mailer.send(Mail(run.id, user.mailbox, user.locale, "welcome", facts))


@dataclass(frozen=True, slots=True)
class TellReferrer:
    """Tell a referrer who joined; those who join while no mail may go out share the next one."""

    clock: Clock
    database: Database
    limit: MailLimit
    links: Links
    mailer: Mailer
    mute_tokens: UnsubscribeTokens

    async def __call__(self, job: ReferralMail, run: JobContext) -> None:
        """Send the mail; raises `RescheduleJob` when the address has had its share of mails."""
        async with self.database.begin() as records:
            referrer = await records.referrals.claim(
                job.referral_id, run.id, with_others=run.attempt > 0
            )
            if referrer is None or not referrer.notify_on_referral or referrer.blocked_at:
                return
            await take_place_or_wait(self, records, run, referrer)
            joined = await records.referrals.claimed(referrer.id, run.id)
        emails = [one.email for one in joined if one.email is not None]
        if not emails:
            return
        await self.mailer.send(self._mail(run, referrer, emails))

    def _mail(self, run: JobContext, referrer: User, emails: list[str]) -> Mail:
        facts = {
            "emails": emails[:LISTED],
            "more": max(len(emails) - LISTED, 0),
        }
        mute = self.links.unsubscribe(self.mute_tokens.sign(referrer.id))
        return Mail(run.id, referrer.mailbox, referrer.locale, "referral", facts, mute=mute)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop the notifications to whoever a token was made for."""

    database: Database
    mute_tokens: UnsubscribeTokens

    async def __call__(self, token: str) -> None:
        """Mute; raises `NotFound` for a token that is none of ours."""
        async with self.database.begin() as records:
            user = await records.users.lock(self.mute_tokens.read(token))
            if user is None:
                raise NotFound
            await records.users.save(replace(user, notify_on_referral=False))


class Limited(Protocol):
    """A use case that keeps to the limit of mails."""

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def limit(self) -> MailLimit:
        """How many mails an address may get."""
        ...


class Mailing(Limited, Protocol):
    """A use case that sends mails to single users, many of them at a time."""

    @property
    def post_office(self) -> MailReservations:
        """What mails begin with."""
        ...


async def begin_mail(
    sender: Mailing,
    run: JobContext,
    user_id: UUID,
    token: OneTimeToken | None = None,
    *,
    counts: bool = True,
) -> User | None:
    """Return whom to mail, or None for a user who is gone or blocked; raises `RescheduleJob`.

    Some places are left for what users ask for.
    """
    limit, now = sender.limit, sender.clock.now()
    places = max(limit.mails - RESERVED, 1) if counts and limit.mails is not None else None
    taken = await sender.post_office.take(
        MailReservationRequest(run.id, user_id, now, places, limit.within, token)
    )
    if taken is None or taken.user.blocked_at is not None:
        return None
    if taken.free_at is not None:
        raise RescheduleJob(taken.free_at - now)
    return taken.user


async def take_place_or_wait(
    sender: Limited, records: Repositories, run: JobContext, user: User
) -> None:
    """Reserve a mail or raise `RescheduleJob`; places stay free for what users ask for."""
    wait = await take_place(sender, records, run.id, user.email_key, kept_free=RESERVED)
    if wait is not None:
        raise RescheduleJob(wait)


async def take_place(
    sender: Limited, records: Repositories, mail: UUID, quota: str, *, kept_free: int = 0
) -> timedelta | None:
    """Count a mail against a quota, or return how long it has to wait; once is enough for each.

    The quota of a user's mails is named by the address, in canonical form.
    """
    limit, now = sender.limit, sender.clock.now()
    if limit.mails is None:
        return None
    free_at = await records.mails.take_place(
        mail, quota, now, mails=max(limit.mails - kept_free, 1), within=limit.within
    )
    return None if free_at is None else free_at - now


def reset_quota(email_key: str) -> str:
    """Return the quota of reset mails to an address.

    Anyone may ask for a reset mail to any address. So these have places of their own: nobody can
    keep an address from getting its other mails, or learn whether it got some.
    """
    return f"reset {email_key}"
