"""Lists of all codes and referrals, for admins and clients."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.codes import Code
from referral.core.entities.searches import CodeFilter, ReferralFilter, ReferralRecord


class CodeSearch(Protocol):
    """Finds codes of all users. Deleted codes are not found."""

    async def find(self, code_id: UUID) -> Code | None: ...

    async def list_page(
        self, wanted: CodeFilter, now: datetime, *, after: UUID | None, limit: int
    ) -> list[Code]:
        """Return codes, newest first, by their status at `now`."""
        ...


class ReferralSearch(Protocol):
    """Finds referrals of all users."""

    async def find(self, referral_id: UUID) -> ReferralRecord | None: ...

    async def list_page(
        self, wanted: ReferralFilter, *, after: UUID | None, limit: int
    ) -> list[ReferralRecord]:
        """Return referrals by the time of joining, newest first; `after` is a referral's id."""
        ...
