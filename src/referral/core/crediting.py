"""Crediting a referrer, when someone joins and when someone names their referrer later."""

from dataclasses import dataclass

from referral.core.errors import ReferralCodeUnusable
from referral.core.jobs import ReferralMail
from referral.core.model import CODE_TEXT, Referral, ReferralStatus, User, Verification
from referral.core.ports import Clock, Ids, Records


@dataclass(frozen=True, slots=True)
class Credit:
    """Count one use of a code, store who joined with it, and have the referrer told.

    A referral is pending, and not told, until the referred user has confirmed the address.
    """

    clock: Clock
    ids: Ids
    verification: Verification

    async def __call__(self, records: Records, user: User, text: str) -> User | None:
        """Credit the code's owner, and return them when that was its last use.

        Raises `ReferralCodeUnusable`, for one's own code as well.
        """
        code = await records.codes.lock_usable(text) if CODE_TEXT.fullmatch(text) else None
        # Waiting for the lock may have taken long: the time that counts is the one after it.
        now = self.clock.now()
        usable = code is not None and code.user_id != user.id
        if code is None or not usable or not await records.codes.count_use(code.id, now):
            raise ReferralCodeUnusable(pointer="/referral_code")
        confirmed = self.verification.is_done_for(user)
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
        if confirmed:
            await records.jobs.enqueue(ReferralMail(referral.id))
        is_last = code.max_uses is not None and code.uses + 1 >= code.max_uses
        return await records.users.get(code.user_id) if is_last else None
