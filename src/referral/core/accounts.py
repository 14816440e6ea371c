"""Joining, and the account itself."""

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.errors import ReferralCodeUnusable, Unauthenticated
from referral.core.jobs import Job, ReferralMail, WelcomeMail
from referral.core.model import (
    CODE_TEXT,
    Address,
    Code,
    Joined,
    Locale,
    Referral,
    ReferralStatus,
    Role,
    User,
    check_password,
    normal_password,
)
from referral.core.ports import Addresses, Clock, Database, Ids, Passwords, Records

RECENT_REFERRALS = 10


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What someone joins with; `referral_code` is whose referral they become."""

    email: str
    password: str
    referral_code: str | None
    locale: Locale


@dataclass(frozen=True, slots=True)
class Register:
    """Make an account, and credit the referrer: both or neither."""

    addresses: Addresses
    clock: Clock
    common_passwords: Container[str]
    database: Database
    ids: Ids
    passwords: Passwords

    async def __call__(self, wanted: NewAccount) -> User:
        """Return the new user; raises `EmailTaken`, `ReferralCodeUnusable` or `WeakPassword`."""
        address = self.addresses.parse(wanted.email)
        password = normal_password(wanted.password)
        check_password(password, address, self.common_passwords)
        hashed = await self.passwords.hash(password)
        user = self._user(address, hashed, wanted.locale)
        async with self.database.begin() as records:
            await records.users.add(user)
            jobs: list[Job] = [WelcomeMail(user.id)]
            if wanted.referral_code is not None:
                referral_id = await self._credit(records, user, wanted.referral_code)
                jobs.append(ReferralMail(referral_id))
            await records.jobs.enqueue(*jobs)
        return user

    def _user(self, address: Address, hashed: str, locale: Locale) -> User:
        return User(
            id=self.ids.new(),
            email=address.typed,
            email_key=address.canonical,
            password_hash=hashed,
            role=Role.MEMBER,
            locale=locale,
            email_verified=False,
            notify_on_referral=True,
            created_at=self.clock.now(),
        )

    async def _credit(self, records: Records, user: User, text: str) -> UUID:
        code = await records.codes.lock_usable(text) if CODE_TEXT.fullmatch(text) else None
        # Waiting for the lock may have taken long: the time that counts is the one after it.
        now = self.clock.now()
        if code is None or not await records.codes.count_use(code.id, now):
            raise ReferralCodeUnusable(pointer="/referral_code")
        referral = Referral(
            id=self.ids.new(),
            referrer_id=code.user_id,
            referred_id=user.id,
            code_id=code.id,
            code=code.text,
            status=ReferralStatus.CONFIRMED,
            joined_at=now,
        )
        await records.referrals.add(referral)
        return referral.id


@dataclass(frozen=True, slots=True)
class Account:
    """A user in full, as of `now`."""

    user: User
    referrer: User | None
    referral_count: int
    recent_referrals: list[Joined]
    active_code: Code | None
    now: datetime


@dataclass(frozen=True, slots=True)
class ShowAccount:
    """Show a user their own account."""

    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID) -> Account:
        """Return the account, or raise `Unauthenticated` when it is gone."""
        now = self.clock.now()
        async with self.database.read() as records:
            user = await records.users.get(user_id)
            if user is None:
                raise Unauthenticated
            return Account(
                user=user,
                referrer=await records.referrals.referrer(user_id),
                referral_count=await records.referrals.count(user_id),
                recent_referrals=await records.referrals.newest(
                    user_id, status=None, after=None, limit=RECENT_REFERRALS
                ),
                active_code=await records.codes.active(user_id, now),
                now=now,
            )


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
        """Store the change, or raise `Unauthenticated` when the account is gone."""
        async with self.database.begin() as records:
            user = await records.users.lock(user_id)
            if user is None:
                raise Unauthenticated
            locale, notify = change.locale, change.notify_on_referral
            await records.users.update(
                user.id,
                user.locale if locale is None else locale,
                notify=user.notify_on_referral if notify is None else notify,
            )
