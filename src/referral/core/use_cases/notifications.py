"""Mails to users, limited by a quota for each address."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.codes import Code
from referral.core.entities.email_links import LINK_LIFETIMES, OneTimeToken, TokenPurpose
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import (
    CodeMailJob,
    ConfirmationMailJob,
    JobContext,
    PasswordResetMailJob,
    ReferralMailJob,
    WelcomeMailJob,
)
from referral.core.entities.mail import Mail
from referral.core.entities.users import User
from referral.core.errors import NoActiveCode, RescheduleJob, TooManyRequests
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.mail_quota import (
    RESERVED_MAIL_SLOTS,
    ReserveSlotInBatch,
    ReserveSlotInTransaction,
)
from referral.core.policies.reauthentication import require_active_account
from referral.core.ports.delivery import Mailer
from referral.core.ports.repositories import Database
from referral.core.ports.security import TokenGenerator, UnsubscribeTokens
from referral.core.ports.system import Clock, IdGenerator, LinkBuilder

MAX_LISTED_EMAILS = 50
"""How many referred users a notification lists; it only counts the others."""


@dataclass(frozen=True, slots=True)
class RequestCodeMail:
    """Enqueue a mail with the caller's active code."""

    clock: Clock
    database: Database
    id_generator: IdGenerator
    reserve_slot: ReserveSlotInTransaction

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
            wait = await self.reserve_slot(repositories, self.id_generator.new(), user.email_key)
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
        variables = {
            "code": code.text,
            "expires_at": code.expires_at,
            "left": None if code.max_uses is None else code.max_uses - code.uses,
            "link": link,
        }
        return Mail(context.id, user.delivery_email, user.locale, "code", variables, qr_url=link)


@dataclass(frozen=True, slots=True)
class SendWelcomeMail:
    """Send the welcome mail."""

    links: LinkBuilder
    mailer: Mailer
    reserve_mail: ReserveSlotInBatch

    async def __call__(self, job: WelcomeMailJob, context: JobContext) -> None:
        """Send the mail; raises `RescheduleJob` if the quota is full."""
        user = await self.reserve_mail(context, job.user_id)
        if user is None:
            return
        variables = {"email": user.email, "docs": self.links.docs()}
        mail = Mail(context.id, user.delivery_email, user.locale, "welcome", variables)
        await self.mailer.send(mail)


@dataclass(frozen=True, slots=True)
class NotifyReferrer:
    """Notify a referrer of new referrals; one mail lists all that waited for a free slot."""

    database: Database
    links: LinkBuilder
    mailer: Mailer
    reserve_slot: ReserveSlotInTransaction
    unsubscribe_tokens: UnsubscribeTokens

    async def __call__(self, job: ReferralMailJob, context: JobContext) -> None:
        """Send the mail; raises `RescheduleJob` if the quota is full."""
        async with self.database.begin() as repositories:
            referrer = await repositories.referrals.assign_to_mail(
                job.referral_id, context.id, include_unassigned=context.attempt > 0
            )
            if referrer is None or not referrer.notify_on_referral or referrer.blocked_at:
                return
            wait = await self.reserve_slot(
                repositories, context.id, referrer.email_key, reserved_slots=RESERVED_MAIL_SLOTS
            )
            if wait is not None:
                raise RescheduleJob(wait)
            referrals = await repositories.referrals.list_by_mail(referrer.id, context.id)
        emails = [referral.email for referral in referrals if referral.email is not None]
        if not emails:
            return
        await self.mailer.send(self._mail(context, referrer, emails))

    def _mail(self, context: JobContext, referrer: User, emails: list[str]) -> Mail:
        listed, more = emails[:MAX_LISTED_EMAILS], max(len(emails) - MAX_LISTED_EMAILS, 0)
        unsubscribe_url = self.links.unsubscribe(self.unsubscribe_tokens.sign(referrer.id))
        return Mail(
            context.id,
            referrer.delivery_email,
            referrer.locale,
            "referral",
            {"emails": listed, "more": more},
            unsubscribe_url=unsubscribe_url,
        )


@dataclass(frozen=True, slots=True)
class SendConfirmationMail:
    """Send the mail with the confirmation link."""

    clock: Clock
    links: LinkBuilder
    mailer: Mailer
    reserve_mail: ReserveSlotInBatch
    token_generator: TokenGenerator

    async def __call__(self, job: ConfirmationMailJob, context: JobContext) -> None:
        """Send it unless the address is confirmed; raises `RescheduleJob` if the quota is full."""
        token, record = _make_link_token(self, job.user_id, TokenPurpose.CONFIRM)
        user = await self.reserve_mail(context, job.user_id, record, counts=not job.counted)
        if user is None:
            return
        variables = {"email": user.email, "link": self.links.confirm(token)}
        await self.mailer.send(
            Mail(context.id, user.delivery_email, user.locale, "confirm", variables)
        )


@dataclass(frozen=True, slots=True)
class SendPasswordResetMail:
    """Send the mail with the password reset link."""

    clock: Clock
    database: Database
    links: LinkBuilder
    mailer: Mailer
    token_generator: TokenGenerator

    async def __call__(self, job: PasswordResetMailJob, context: JobContext) -> None:
        """Send it if the user exists and is not blocked."""
        async with self.database.begin() as repositories:
            user = await repositories.users.find(job.user_id)
            if user is None or user.blocked_at is not None:
                return
            token, record = _make_link_token(self, user.id, TokenPurpose.RESET)
            await repositories.one_time_tokens.add(record)
        variables = {"email": user.email, "link": self.links.reset(token)}
        await self.mailer.send(
            Mail(context.id, user.delivery_email, user.locale, "reset", variables)
        )


def _make_link_token(
    sender: SendConfirmationMail | SendPasswordResetMail, user_id: UUID, purpose: TokenPurpose
) -> tuple[str, OneTimeToken]:
    """Generate a token; return it, and the record to store, which holds only its digest."""
    token = sender.token_generator.new()
    expires_at = sender.clock.now() + LINK_LIFETIMES[purpose]
    return token, OneTimeToken(sender.token_generator.digest(token), user_id, purpose, expires_at)
