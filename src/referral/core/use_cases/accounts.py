"""Joining, and the account itself."""

import asyncio
from collections.abc import Container
from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.account_view import AccountView
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import ConfirmationMail, Job, Verifying
from referral.core.entities.passwords import accept_password
from referral.core.entities.referrals import Visibility
from referral.core.entities.users import Address, Locale, Role, User, Verification
from referral.core.errors import NotFound, Unauthenticated
from referral.core.policies.attribution import CreditReferrer
from referral.core.policies.confirmation import jobs_after_confirmation
from referral.core.policies.email_deliverability import VerifyEmailAtSignup
from referral.core.policies.idempotency import begin_once, finish_once
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import lock_account
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel
from referral.core.ports.security import PasswordHasher
from referral.core.ports.system import Clock, IdGenerator
from referral.core.ports.third_parties import Enrichment

RECENT_REFERRALS = 10


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What someone joins with; `referral_code` is whose referral they become.

    Admins are made by the operator, who knows that the address is theirs.
    """

    email: str
    password: str
    referral_code: str | None = None
    locale: Locale = Locale.EN
    role: Role = Role.MEMBER


@dataclass(frozen=True, slots=True)
class Register:
    """Make an account, and credit the referrer: both or neither."""

    addresses: EmailParser
    clear: InvalidateLookup
    clock: Clock
    common_passwords: Container[str]
    credit: CreditReferrer
    database: Database
    enrichment: Enrichment | None
    ids: IdGenerator
    passwords: PasswordHasher
    screen: VerifyEmailAtSignup
    verification: Verification

    async def __call__(
        self, wanted: NewAccount, attempt: IdempotentRequest[User] | None = None
    ) -> User:
        """Return the new user.

        Raises `EmailTaken`, `EmailUndeliverable`, `ReferralCodeUnusable` or `WeakPassword`.
        """
        address = self.addresses.parse(wanted.email)
        password = accept_password(
            wanted.password, address, self.common_passwords, field="password"
        )
        # Side by side, so that the quicker of the two takes no time.
        hashed, user = await asyncio.gather(
            self.passwords.hash(password), self.screen(self._user(address, wanted))
        )
        user = replace(user, password_hash=hashed)
        spent: User | None = None
        async with self.database.begin() as records:
            await begin_once(records, self.clock, attempt)
            await records.users.add(user)
            await records.jobs.enqueue(*self._jobs(user))
            if wanted.referral_code is not None:
                spent = await self.credit(records, user, wanted.referral_code)
            await finish_once(records, self.clock, attempt, user, user.id)
        if spent is not None:
            await self.clear(spent)
        return user

    def _jobs(self, user: User) -> list[Job]:
        jobs: list[Job] = [ConfirmationMail(user.id)]
        if self.verification.is_done_for(user):
            jobs = jobs_after_confirmation(user, self.enrichment)
        if self.screen.is_open(user):
            jobs.append(Verifying(user.id))
        return jobs

    def _user(self, address: Address, wanted: NewAccount) -> User:
        now, is_admin = self.clock.now(), wanted.role is Role.ADMIN
        return User(
            id=self.ids.new(),
            email=address.typed,
            email_key=address.canonical,
            password_hash="",
            role=wanted.role,
            locale=wanted.locale,
            email_verified=is_admin,
            notify_on_referral=True,
            created_at=now,
            confirm_by=None if is_admin else self.verification.deadline(now),
        )


@dataclass(frozen=True, slots=True)
class ShowAccount:
    """Show a user their own account."""

    clock: Clock
    reads: ReadModel
    visibility: Visibility

    async def __call__(self, user_id: UUID) -> AccountView:
        """Return the account, or raise `Unauthenticated` when it is gone.

        Under `open` alone it names the referrer's address: otherwise a code that was posted in
        public would tell it to everyone who joins.
        """
        account = await self.reads.account(user_id, RECENT_REFERRALS, self.clock.now())
        if account is None:
            raise Unauthenticated
        if account.referrer is None or self.visibility is Visibility.OPEN:
            return account
        return replace(account, referrer=replace(account.referrer, email=None))


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is to change; None stays as it is."""

    locale: Locale | None
    notify_on_referral: bool | None


@dataclass(frozen=True, slots=True)
class UpdateAccount:
    """Change the language of mails, or whether new referrals are told."""

    database: Database

    async def __call__(self, user_id: UUID, change: AccountChange) -> None:
        """Store the change, or raise `AccountBlocked` or `Unauthenticated`."""
        async with self.database.begin() as records:
            user = await lock_account(records, user_id)
            locale, notify = change.locale, change.notify_on_referral
            changed = replace(
                user,
                locale=user.locale if locale is None else locale,
                notify_on_referral=user.notify_on_referral if notify is None else notify,
            )
            await records.users.save(changed)


@dataclass(frozen=True, slots=True)
class BlockAccount:
    """Shut someone out, or let them in again: while blocked no session goes on, no password begins
    another, no code of theirs is found or used, and the address stays taken.
    """

    addresses: EmailParser
    clear: InvalidateLookup
    clock: Clock
    database: Database

    async def __call__(self, email: str, *, undo: bool = False) -> User:
        """Return the account as it is then; raises `InvalidRequest` or `NotFound`."""
        address = self.addresses.parse(email)
        async with self.database.begin() as records:
            found = await records.users.by_email(address.canonical)
            user = found and await records.users.lock(found.id)
            if user is None:
                raise NotFound("No account has this address.")
            # Whoever is joining with the code does so before the block, or finds it blocked.
            await records.codes.lock_enabled(user.id)
            now = self.clock.now()
            user = user.unblocked(now) if undo else replace(user, blocked_at=now)
            await records.users.save(user)
            await records.sessions.end_all(user.id)
        await self.clear(user)
        return user
