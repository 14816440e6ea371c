"""Mails to users, limited by a quota for each address."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from referral.core.entities.codes import Code
from referral.core.entities.email_links import OneTimeToken
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import CodeMailJob, JobContext, ReferralMailJob, WelcomeMailJob
from referral.core.entities.mail import Mail, MailReservationRequest
from referral.core.entities.users import User
from referral.core.errors import NoActiveCode, NotFound, RescheduleJob, TooManyRequests
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.reauthentication import require_active_account
from referral.core.ports.delivery import Mailer, MailReservations
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import UnsubscribeTokens
from referral.core.ports.system import Clock, IdGenerator, LinkBuilder

RESERVED_MAIL_SLOTS = 1
"""Slots of the quota that are reserved for mails requested by the user."""

MAX_LISTED_EMAILS = 50
"""How many referred users a notification lists; it only counts the others."""


@dataclass(frozen=True, slots=True)
class MailLimit:
    """At most `max_mails` mails to one address in each window; None means unlimited."""

    max_mails: int | None
    window: timedelta


@dataclass(frozen=True, slots=True)
class RequestCodeMail:
    """Enqueue a mail with the caller's active code."""

    clock: Clock
    database: Database
    id_generator: IdGenerator
    limit: MailLimit

    async def __call__(
        self, user_id: UUID, idempotent_request: IdempotentRequest[None] | None = None
    ) -> None:
        """Enqueue the mail; raises `NoActiveCode`, or `TooManyRequests` if the quota is full."""
        now = self.clock.now()
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            user = require_active_account(await repositories.users.find(user_id))
            code = await repositories.codes.find_active(user_id, now)
            if code is None:
                raise NoActiveCode
            wait = await reserve_slot(self, repositories, self.id_generator.new(), user.email_key)
            if wait is not None:
                raise TooManyRequests(retry_after=wait)
            await repositories.jobs.enqueue(CodeMailJob(user_id, code.id))
            await save_idempotent_response(
                repositories, self.clock, idempotent_request, None, user_id
            )


@dataclass(frozen=True, slots=True)
class SendCodeMail:
    """Mail a code to its owner, with its share link as a QR code."""

    clock: Clock
    database: Database
    links: LinkBuilder
    mailer: Mailer

    async def __call__(self, job: CodeMailJob, context: JobContext) -> None:
        """Send the mail if the code is still active."""
        now = self.clock.now()
        async with self.database.read() as repositories:
            user = await repositories.users.find(job.user_id)
            code = await repositories.codes.find(job.user_id, job.code_id)
        if user is not None and code is not None and code.is_active(now):
            await self.mailer.send(self._mail(context, user, code))

    def _mail(self, context: JobContext, user: User, code: Code) -> Mail:
        link = self.links.share(code.text)
        facts = {"code": code.text, "expires_at": code.expires_at, "link": link}
        left = None if code.max_uses is None else code.max_uses - code.uses
        return Mail(
            context.id,
            user.delivery_email,
            user.locale,
            "code",
            facts | {"left": left},
            qr_url=link,
        )


@dataclass(frozen=True, slots=True)
class SendWelcomeMail:
    """Send the welcome mail."""

    clock: Clock
    limit: MailLimit
    links: LinkBuilder
    mailer: Mailer
    mail_reservations: MailReservations

    async def __call__(self, job: WelcomeMailJob, context: JobContext) -> None:
        """Send the mail; raises `RescheduleJob` when the address has had its share of mails."""
        user = await reserve_mail(self, context, job.user_id)
        if user is None:
            return
        facts = {"email": user.email, "docs": self.links.docs()}
        await self.mailer.send(Mail(context.id, user.delivery_email, user.locale, "welcome", facts))


@dataclass(frozen=True, slots=True)
class NotifyReferrer:
    """Notify a referrer of new referrals; one mail lists all that waited for a free slot."""

    clock: Clock
    database: Database
    limit: MailLimit
    links: LinkBuilder
    mailer: Mailer
    unsubscribe_tokens: UnsubscribeTokens

    async def __call__(self, job: ReferralMailJob, context: JobContext) -> None:
        """Send the mail; raises `RescheduleJob` when the address has had its share of mails."""
        async with self.database.begin() as repositories:
            referrer = await repositories.referrals.assign_to_mail(
                job.referral_id, context.id, include_unassigned=context.attempt > 0
            )
            if referrer is None or not referrer.notify_on_referral or referrer.blocked_at:
                return
            await reserve_slot_or_reschedule(self, repositories, context, referrer)
            joined = await repositories.referrals.list_by_mail(referrer.id, context.id)
        emails = [one.email for one in joined if one.email is not None]
        if not emails:
            return
        await self.mailer.send(self._mail(context, referrer, emails))

    def _mail(self, context: JobContext, referrer: User, emails: list[str]) -> Mail:
        facts = {
            "emails": emails[:MAX_LISTED_EMAILS],
            "more": max(len(emails) - MAX_LISTED_EMAILS, 0),
        }
        mute = self.links.unsubscribe(self.unsubscribe_tokens.sign(referrer.id))
        return Mail(
            context.id,
            referrer.delivery_email,
            referrer.locale,
            "referral",
            facts,
            unsubscribe_url=mute,
        )


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


class MailLimitProvider(Protocol):
    """A use case that keeps to the limit of mails."""

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def limit(self) -> MailLimit:
        """How many mails an address may get."""
        ...


class MailReservationsProvider(MailLimitProvider, Protocol):
    """A use case that sends mails to single users, many of them at a time."""

    @property
    def mail_reservations(self) -> MailReservations:
        """What mails begin with."""
        ...


async def reserve_mail(
    sender: MailReservationsProvider,
    context: JobContext,
    user_id: UUID,
    token: OneTimeToken | None = None,
    *,
    counts: bool = True,
) -> User | None:
    """Return whom to mail, or None for a user who is gone or blocked; raises `RescheduleJob`.

    Some places are left for what users ask for.
    """
    limit, now = sender.limit, sender.clock.now()
    slots = (
        max(limit.max_mails - RESERVED_MAIL_SLOTS, 1)
        if counts and limit.max_mails is not None
        else None
    )
    reservation = await sender.mail_reservations.reserve(
        MailReservationRequest(context.id, user_id, now, slots, limit.window, token)
    )
    if reservation is None or reservation.user.blocked_at is not None:
        return None
    if reservation.retry_at is not None:
        raise RescheduleJob(reservation.retry_at - now)
    return reservation.user


async def reserve_slot_or_reschedule(
    sender: MailLimitProvider, repositories: Repositories, context: JobContext, user: User
) -> None:
    """Reserve a mail or raise `RescheduleJob`; places stay free for what users ask for."""
    wait = await reserve_slot(
        sender, repositories, context.id, user.email_key, reserved_slots=RESERVED_MAIL_SLOTS
    )
    if wait is not None:
        raise RescheduleJob(wait)


async def reserve_slot(
    sender: MailLimitProvider,
    repositories: Repositories,
    mail_id: UUID,
    quota: str,
    *,
    reserved_slots: int = 0,
) -> timedelta | None:
    """Count a mail against a quota, or return how long it has to wait; once is enough for each.

    The quota of a user's mails is named by the address, in canonical form.
    """
    limit, now = sender.limit, sender.clock.now()
    if limit.max_mails is None:
        return None
    retry_at = await repositories.mail_quota.reserve_slot(
        mail_id, quota, now, slots=max(limit.max_mails - reserved_slots, 1), window=limit.window
    )
    return None if retry_at is None else retry_at - now


def password_reset_quota(email_key: str) -> str:
    """Return the quota of reset mails to an address.

    Anyone may ask for a reset mail to any address. So these have places of their own: nobody can
    keep an address from getting its other mails, or learn whether it got some.
    """
    return f"reset {email_key}"
