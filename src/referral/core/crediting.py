"""Crediting a referrer, when someone joins and when someone names their referrer later."""

from dataclasses import dataclass

from referral.core.errors import ReferralCodeUnusable
from referral.core.model import CODE_TEXT, Referral, ReferralStatus, User
from referral.core.ports import Clock, Ids, Records


@dataclass(frozen=True, slots=True)
class Credit:
    """Count one use of a code, and store who joined with it.

    With `verification` a referral is pending until the referred user confirms the address.
    """

    clock: Clock
    ids: Ids
    verification: bool

    async def __call__(self, records: Records, user: User, text: str) -> Referral:
        """Return the referral, or raise `ReferralCodeUnusable`, for one's own code as well."""
        code = await records.codes.lock_usable(text) if CODE_TEXT.fullmatch(text) else None
        # Waiting for the lock may have taken long: the time that counts is the one after it.
        now = self.clock.now()
        usable = code is not None and code.user_id != user.id
        if code is None or not usable or not await records.codes.count_use(code.id, now):
            raise ReferralCodeUnusable(pointer="/referral_code")
        confirmed = user.email_verified or not self.verification
        referral = Referral(
            id=self.ids.new(),
            referrer_id=code.user_id,
            referred_id=user.id,
            code_id=code.id,
            code=code.text,
            status=ReferralStatus.CONFIRMED if confirmed else ReferralStatus.PENDING,
            joined_at=now,
        )
        await records.referrals.add(referral)
        return referral
