"""The port `StatisticsRepository`: figures agree with the rows after any changes."""

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest

from referral.core.entities.codes import Code
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.statistics import (
    Interval,
    ReferrerFigures,
    ReferrerFilter,
    Statistics,
    StatisticsRange,
    UserStatistics,
)
from referral.core.entities.users import User
from referral.core.ports.repositories import Database
from tests.contracts.rows import make_code, make_referral, make_user

T = TypeVar("T")

STEPS = 150
DAY = timedelta(days=1)
YEARS_BEGIN = datetime(2031, 1, 1, tzinfo=UTC)
"""Other tests of this module use other years: they share a database."""


class History:
    """Random changes, and the rows that they leave."""

    def __init__(self, store: Database, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)  # noqa: S311 - no secrets
        self.begin = YEARS_BEGIN.replace(year=YEARS_BEGIN.year + 3 * seed)
        self.users: list[User] = []
        self.codes: list[Code] = []
        self.referrals: dict[UUID, Referral] = {}
        self.decided: dict[tuple[UUID, ReferralStatus], datetime] = {}

    def time(self) -> datetime:
        """Return a time of two years; many are of a few days, and some at midnight."""
        days = self.random.choice([0, 1, 30, 31, 58, 59, 365, self.random.randrange(730)])
        midnight = self.begin + timedelta(days=days)
        return midnight + self.random.choice([0, self.random.random()]) * DAY

    async def step(self) -> None:
        """Make a change, or add the changes up."""
        change = self.random.choice([self.register, self.register, self.decide, self.add_up])
        await change()

    async def register(self) -> None:
        """Store a user, maybe a code, and maybe a referral by a code of few others."""
        at, owners = self.time(), self.codes[:4]
        user, status = make_user(created_at=at), self.random.choice(list(ReferralStatus))
        code = make_code(user, created_at=self.time()) if self.random.random() < 0.5 else None
        referral = None
        if owners and self.random.random() < 0.8:
            by = self.random.choice(owners)
            referral = make_referral(by, user, joined_at=self.time(), status=status)
        async with self.store.begin() as repositories:
            await repositories.users.add(user)
            if code:
                await repositories.codes.add(code)
            if referral:
                await repositories.referrals.add(referral)
        self.users.append(user)
        self.codes += [code] if code else []
        if referral:
            self.referrals[referral.id] = referral
            if status is not ReferralStatus.PENDING:
                self.decided[referral.id, status] = referral.joined_at

    async def decide(self) -> None:
        """Decide on a referral, as an admin or as a confirmation does; sometimes in vain."""
        if not self.referrals:
            return
        referral, at = self.random.choice(list(self.referrals.values())), self.time()
        status = self.random.choice([ReferralStatus.CONFIRMED, ReferralStatus.REJECTED])
        by_admin, is_kept = self.random.random() < 0.5, self.random.random() < 0.8
        changed = replace(referral, status=status)
        try:
            async with self.store.begin() as repositories:
                if by_admin:
                    decision = replace(changed, decided_at=at, reason="Spam.")
                    await repositories.referrals.save_decision(decision)
                else:
                    await repositories.referrals.set_status(referral.id, status, at)
                if not is_kept:
                    raise ZeroDivisionError  # noqa: TRY301 - the transaction is rolled back
        except ZeroDivisionError:
            return
        self.referrals[referral.id] = changed
        self.decided.setdefault((referral.id, status), at)

    async def add_up(self) -> None:
        """Add some of the changes to the figures."""
        async with self.store.begin() as repositories:
            await repositories.statistics.add_changes(self.random.randrange(1, 20))

    def count_all(self, wanted: StatisticsRange) -> dict[date, Statistics]:
        """Count the rows by interval."""
        times = [("registered", user.created_at) for user in self.users]
        times += [("codes", code.created_at) for code in self.codes]
        times += [("referred", each.joined_at) for each in self.referrals.values()]
        times += [(status, at) for (_, status), at in self.decided.items()]
        return {start: Statistics(**counts) for start, counts in grouped(wanted, times).items()}

    def count_of(self, referrer_id: UUID, wanted: StatisticsRange) -> dict[date, UserStatistics]:
        """Count a user's referrals by interval."""
        own = {each.id: each for each in self.referrals.values() if each.referrer_id == referrer_id}
        times = [("joined", each.joined_at) for each in own.values()]
        times += [
            (status, at)
            for (referral_id, status), at in self.decided.items()
            if referral_id in own and status is ReferralStatus.CONFIRMED
        ]
        return {start: UserStatistics(**counts) for start, counts in grouped(wanted, times).items()}

    def list_referrers(self, wanted: ReferrerFilter) -> list[ReferrerFigures]:
        """Count the referrals of each referrer by status."""
        found: dict[UUID, Counter[str]] = {}
        for each in self.referrals.values():
            since, until = (
                wanted.since or each.joined_at,
                wanted.until or datetime.max.replace(tzinfo=UTC),
            )
            if since <= each.joined_at < until:
                found.setdefault(each.referrer_id, Counter())[each.status] += 1
        figures = [
            ReferrerFigures(user_id, by["confirmed"], by["pending"], by["rejected"])
            for user_id, by in found.items()
        ]
        return sorted(figures, key=lambda each: (each.confirmed, each.user_id), reverse=True)


def grouped(wanted: StatisticsRange, times: list[tuple[Any, datetime]]) -> dict[date, Counter[str]]:
    """Count the times of each name by interval."""
    found: dict[date, Counter[str]] = {}
    for name, at in times:
        if wanted.first <= at.date() < wanted.end:
            found.setdefault(wanted.interval.start_of(at.date()), Counter())[str(name)] += 1
    return found


def without(empty: T, found: Mapping[date, T]) -> dict[date, T]:
    """Leave out intervals in which nothing counts, which may be there."""
    return {start: row for start, row in found.items() if row != empty}


@pytest.mark.parametrize("seed", range(6))
async def test_figures_agree_with_the_rows(store: Database, seed: int) -> None:
    """After random registrations and decisions, some rolled back, added up or not."""
    history = History(store, seed)
    for _ in range(STEPS):
        await history.step()
    years = (history.begin, history.begin + 731 * DAY)
    ranges = [years, *(sorted((history.time(), history.time() + DAY / 2)) for _ in range(20))]
    async with store.read() as repositories:
        for first, end in ranges:
            for interval in Interval:
                wanted = StatisticsRange.of(first, end, interval)
                counted = await repositories.statistics.count_all(wanted)
                assert without(Statistics(), counted) == history.count_all(wanted)
                for owner in history.codes[:2]:
                    found = await repositories.statistics.count_of(owner.user_id, wanted)
                    expected = history.count_of(owner.user_id, wanted)
                    assert without(UserStatistics(), found) == expected


@pytest.mark.parametrize("seed", range(6, 10))
async def test_list_of_referrers_agrees_with_the_rows(store: Database, seed: int) -> None:
    """For all time, whole days, months and years, several of them, and parts of days."""
    history = History(store, seed)
    for _ in range(STEPS):
        await history.step()
    owners = {code.user_id for code in history.codes}
    year, end = history.begin.year, history.begin + 731 * DAY
    months = [history.begin.replace(month=month) for month in range(1, 13)]
    ranges = [
        (None, None),
        (history.begin, end),
        (history.begin, history.begin.replace(year=year + 1)),
        *((since, since + DAY) for since in months[:3]),
        *itertools.pairwise(months),
        (months[1], end),
        *((since, until) for since, until in itertools.combinations(months, 2)),
        *(sorted((history.time(), history.time())) for _ in range(40)),
        (months[5], months[2]),
    ]
    async with store.read() as repositories:
        for since, until in ranges:
            wanted = ReferrerFilter(since, until)
            listed = await repositories.statistics.list_referrers(wanted, 10**6)
            expected = history.list_referrers(wanted)
            assert [each for each in listed if each.user_id in owners] == expected
            if since is not None:
                top = await repositories.statistics.list_referrers(wanted, 2)
                assert top == expected[:2]


async def test_open_ranges_end_nowhere(store: Database) -> None:
    """Without `since`, or without `until`, everything before or after counts."""
    owner, at = make_user(), datetime(2029, 5, 4, 3, 2, 1, tzinfo=UTC)
    code = make_code(owner)
    joined = [at.replace(year=1999), at, at.replace(year=2999)]
    async with store.begin() as repositories:
        await repositories.users.add(owner)
        await repositories.codes.add(code)
        for each in joined:
            referred = make_user()
            await repositories.users.add(referred)
            await repositories.referrals.add(make_referral(code, referred, joined_at=each))

    async def count(since: datetime | None, until: datetime | None) -> int:
        async with store.read() as repositories:
            wanted = ReferrerFilter(since, until)
            listed = await repositories.statistics.list_referrers(wanted, 10**6)
        return next((each.confirmed for each in listed if each.user_id == owner.id), 0)

    async def check() -> None:
        moment = datetime.resolution
        assert await count(None, None) == 3
        assert [await count(each, None) for each in joined] == [3, 2, 1]
        assert [await count(None, each) for each in joined] == [0, 1, 2]
        assert [await count(each + moment, None) for each in joined] == [2, 1, 0]
        assert [await count(None, each + moment) for each in joined] == [1, 2, 3]

    await check()
    async with store.begin() as repositories:
        while await repositories.statistics.add_changes(1000):
            pass
    await check()
