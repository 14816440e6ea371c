"""Figures of the programme, kept by day. They agree with the rows that they count at any time."""

from collections.abc import Mapping
from datetime import date
from typing import Protocol
from uuid import UUID

from referral.core.entities.statistics import (
    ReferrerFigures,
    ReferrerFilter,
    Statistics,
    StatisticsRange,
    UserStatistics,
)


class StatisticsRepository(Protocol):
    """The figures; intervals in which nothing happened are missing."""

    async def count_all(self, wanted: StatisticsRange) -> Mapping[date, Statistics]:
        """Return the figures of all users by the start of the interval."""
        ...

    async def count_of(
        self, referrer_id: UUID, wanted: StatisticsRange
    ) -> Mapping[date, UserStatistics]:
        """Return the figures of one referrer by the start of the interval."""
        ...

    async def list_referrers(self, wanted: ReferrerFilter, limit: int) -> list[ReferrerFigures]:
        """Return the referrers with the most confirmed referrals, the greatest id first of two."""
        ...

    async def add_changes(self, limit: int) -> int:
        """Add up to `limit` of the committed changes to the figures by day; return their number.

        Only one transaction does it at a time; while another one does, nothing is added.
        """
        ...
