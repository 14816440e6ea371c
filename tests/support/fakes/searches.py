"""The fakes of the lists of all codes and referrals."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.codes import Code
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.searches import CodeFilter, ReferralFilter, ReferralRecord
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeCodeSearch:
    """Codes in a dict."""

    tables: Tables

    async def find(self, code_id: UUID) -> Code | None:
        return None if code_id in self.tables.deleted_codes else self.tables.codes.get(code_id)

    async def list_page(
        self, wanted: CodeFilter, now: datetime, *, after: UUID | None, limit: int
    ) -> list[Code]:
        matching = [
            code
            for code in self.tables.codes.values()
            if code.id not in self.tables.deleted_codes
            and (wanted.code is None or code.text.upper() == wanted.code.upper())
            and wanted.user_id in {None, code.user_id}
            and wanted.status in {None, code.status(now)}
            and (after is None or code.id < after)
        ]
        return sorted(matching, key=lambda code: code.id, reverse=True)[:limit]


@dataclass(frozen=True)
class FakeReferralSearch:
    """Referrals in a dict."""

    tables: Tables

    async def find(self, referral_id: UUID) -> ReferralRecord | None:
        referral = self.tables.referrals.get(referral_id)
        return None if referral is None else self._record(referral)

    async def list_page(
        self, wanted: ReferralFilter, *, after: UUID | None, limit: int
    ) -> list[ReferralRecord]:
        last = None if after is None else self.tables.referrals[after]
        matching = [
            referral
            for referral in self.tables.referrals.values()
            if self._matches(referral, wanted) and (last is None or _key(referral) < _key(last))
        ]
        return [self._record(each) for each in sorted(matching, key=_key, reverse=True)[:limit]]

    def _matches(self, referral: Referral, wanted: ReferralFilter) -> bool:
        code = self.tables.codes[referral.code_id].text.upper() if referral.code_id else None
        return (
            wanted.status in {None, referral.status}
            and wanted.referrer_id in {None, referral.referrer_id}
            and (wanted.code is None or code == wanted.code.upper())
            and (wanted.since is None or referral.joined_at >= wanted.since)
            and (wanted.until is None or referral.joined_at < wanted.until)
            and wanted.held in {None, referral.held}
        )

    def _record(self, referral: Referral) -> ReferralRecord:
        return ReferralRecord(
            referral_id=referral.id,
            referrer_id=referral.referrer_id,
            id=referral.referred_id,
            email=self.tables.users[referral.referred_id].email or None,
            status=referral.status,
            code=referral.code,
            joined_at=referral.joined_at,
            held=referral.held,
            reason=referral.reason,
            risk_signals=referral.risk_signals,
        )


def _key(referral: Referral) -> tuple[datetime, UUID]:
    return referral.joined_at, referral.id


def count_referrals(tables: Tables, user_id: UUID) -> int:
    """Return the number of a user's referrals, by codes and without one."""
    uses = sum(code.uses for code in tables.codes.values() if code.user_id == user_id)
    referrals = [each for each in tables.referrals.values() if each.referrer_id == user_id]
    return uses + sum(
        each.code_id is None and each.status is not ReferralStatus.REJECTED for each in referrals
    )
