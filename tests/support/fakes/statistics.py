"""The fake of the figures by day, which counts the rows at each question."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.statistics import (
    ReferrerFigures,
    ReferrerFilter,
    Statistics,
    StatisticsRange,
    UserStatistics,
)
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeStatisticsRepository:
    """Figures counted from the dicts of other fakes."""

    tables: Tables

    async def count_all(self, wanted: StatisticsRange) -> Mapping[date, Statistics]:
        found: dict[date, Counter[str]] = defaultdict(Counter)
        times = [("registered", user.created_at) for user in self.tables.users.values()]
        times += [("codes", code.created_at) for code in self.tables.codes.values()]
        times += [("referred", each.joined_at) for each in self.tables.referrals.values()]
        times += self._decisions(self.tables.referrals.values())
        for name, at in times:
            _count(found, wanted, name, at)
        return {start: Statistics(**counts) for start, counts in found.items()}

    async def count_of(
        self, referrer_id: UUID, wanted: StatisticsRange
    ) -> Mapping[date, UserStatistics]:
        found: dict[date, Counter[str]] = defaultdict(Counter)
        own = [each for each in self.tables.referrals.values() if each.referrer_id == referrer_id]
        for each in own:
            _count(found, wanted, "joined", each.joined_at)
        for name, at in self._decisions(own):
            if name == ReferralStatus.CONFIRMED:
                _count(found, wanted, name, at)
        return {start: UserStatistics(**counts) for start, counts in found.items()}

    async def list_referrers(self, wanted: ReferrerFilter, limit: int) -> list[ReferrerFigures]:
        found: dict[UUID, Counter[str]] = defaultdict(Counter)
        for each in self.tables.referrals.values():
            if (wanted.since is None or each.joined_at >= wanted.since) and (
                wanted.until is None or each.joined_at < wanted.until
            ):
                found[each.referrer_id][each.status] += 1
        listed = [
            ReferrerFigures(user_id, counts["confirmed"], counts["pending"], counts["rejected"])
            for user_id, counts in found.items()
        ]
        return sorted(listed, key=lambda each: (each.confirmed, each.user_id), reverse=True)[:limit]

    async def add_changes(self, limit: int) -> int:  # noqa: ARG002 - there are none
        return 0

    def _decisions(self, referrals: Iterable[Referral]) -> list[tuple[str, datetime]]:
        """Return the first confirmation and the first rejection of each referral."""
        return [
            (status, at)
            for each in referrals
            for status in (ReferralStatus.CONFIRMED, ReferralStatus.REJECTED)
            if (at := self.tables.decisions.get((each.id, status)))
        ]


def _count(
    found: dict[date, Counter[str]], wanted: StatisticsRange, name: str, at: datetime
) -> None:
    day = at.astimezone(UTC).date()
    if wanted.first <= day < wanted.end:
        found[wanted.interval.start_of(day)][name] += 1
