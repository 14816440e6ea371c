"""Joining, and the account itself."""

from collections.abc import Container
from dataclasses import dataclass
from uuid import UUID

from referral.core.errors import ReferralCodeUnusable, Unauthenticated
from referral.core.model import (
    CODE_TEXT,
    Account,
    Address,
    Locale,
    Referral,
    ReferralStatus,
    Role,
    User,
    check_password,
    normal_password,
)
from referral.core.ports import Addresses, Cache, Clock, Database, Ids, Passwords, Reads, Records

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
    cache: Cache
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
        spent: User | None = None
        async with self.database.begin() as records:
            await records.users.add(user)
            if wanted.referral_code is not None:
                spent = await self._credit(records, user, wanted.referral_code)
        if spent is not None:
            await self.cache.clear(spent.email_key)
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

    async def _credit(self, records: Records, user: User, text: str) -> User | None:
        """Credit the owner of a code, and return them when that was its last use."""
        code = await records.codes.lock_usable(text) if CODE_TEXT.fullmatch(text) else None
        # Waiting for the lock may have taken long: the time that counts is the one after it.
        now = self.clock.now()
        if code is None or not await records.codes.count_use(code.id, now):
            raise ReferralCodeUnusable(pointer="/referral_code")
        await records.referrals.add(
            Referral(
                id=self.ids.new(),
                referrer_id=code.user_id,
                referred_id=user.id,
                code_id=code.id,
                code=code.text,
                status=ReferralStatus.CONFIRMED,
                joined_at=now,
            )
        )
        is_last = code.max_uses is not None and code.uses + 1 >= code.max_uses
        return await records.users.get(code.user_id) if is_last else None


@dataclass(frozen=True, slots=True)
class ShowAccount:
    """Show a user their own account."""

    clock: Clock
    reads: Reads

    async def __call__(self, user_id: UUID) -> Account:
        """Return the account, or raise `Unauthenticated` when it is gone."""
        account = await self.reads.account(user_id, RECENT_REFERRALS, self.clock.now())
        if account is None:
            raise Unauthenticated
        return account
