"""The checker of histories finds what is wrong, and real histories have nothing of it."""

import asyncio
from dataclasses import replace

import pytest

from tests.faults.history import Change, History, Read, Registration
from tests.faults.races import race
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed

RACE_SECONDS = 4


def made(code: str, began: float, ended: float, *, gave_way: bool = True) -> Change:
    """A code that was made by process A."""
    return Change("ann", code, True, "A", began, ended, gave_way)  # noqa: FBT003 - a tuple


def gone(code: str, began: float, ended: float) -> Change:
    """A code that was deleted by process A."""
    return Change("ann", code, False, "A", began, ended)  # noqa: FBT003 - a tuple


def seen(code: str, process: str, began: float, *, remembers: bool = True) -> Read:
    """A code that was shown, a tenth of a second later."""
    return Read("ann", frozenset({code}), process, began, began + 0.1, remembers)


def joined(code: str, began: float, email: str = "bob") -> Registration:
    """Someone who joined with a code."""
    return Registration("ann", code, email, began, began + 0.1)


CONSISTENT = History([made("X", 0, 1), gone("X", 3, 4)], [seen("X", "A", 2)], [joined("X", 2)])

ALLOWED_READS = {
    "shown by another process within a second": [seen("X", "B", 4.9)],
    "shown while it ends": [seen("X", "A", 3.9)],
}

VIOLATIONS = {
    "two at once": replace(
        CONSISTENT,
        reads=[Read("ann", frozenset({"X", "Y"}), "A", 2, 2.1, cached=False)],
        changes=[made("X", 0, 1), made("Y", 0, 3)],
    ),
    "made beside another": replace(
        CONSISTENT, changes=[*CONSISTENT.changes, made("Y", 1.5, 2.5, gave_way=False)]
    ),
    "shown by the same process": replace(CONSISTENT, reads=[seen("X", "A", 4.1)]),
    "shown by another process after a second": replace(CONSISTENT, reads=[seen("X", "B", 5.1)]),
    "listed by another process": replace(CONSISTENT, reads=[seen("X", "B", 4.1, remembers=False)]),
    "shown after it was replaced": replace(
        CONSISTENT, changes=[made("X", 0, 1), made("Y", 1, 2)], reads=[seen("X", "A", 2.1)]
    ),
    "credited after its end": replace(CONSISTENT, registrations=[joined("X", 4.1)]),
    "acknowledged twice": replace(CONSISTENT, registrations=[joined("X", 2), joined("X", 2.5)]),
}


def test_a_history_by_the_rules_is_fine() -> None:
    """A code is made, shown, used and deleted."""
    assert CONSISTENT.find_violations({"X": 1}, ["bob"]) == []


@pytest.mark.parametrize("sights", ALLOWED_READS.values(), ids=ALLOWED_READS)
def test_what_may_be_is_no_violation(sights: list[Read]) -> None:
    """Within the bounds an old answer is allowed."""
    assert replace(CONSISTENT, reads=sights).find_violations({"X": 1}, ["bob"]) == []


@pytest.mark.parametrize("history", VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_may_not_be_is_found(history: History) -> None:
    """One thing is wrong in each, and the checker says which."""
    uses = {"X": len(history.registrations)}
    assert len(history.find_violations(uses, ["bob"])) == 1


@pytest.mark.parametrize(
    ("uses", "accounts"),
    [({"X": 2}, ["bob"]), ({}, ["bob"]), ({"X": 1}, []), ({"X": 1}, ["bob"] * 2)],
)
def test_wrong_sums_are_found(uses: dict[str, int], accounts: list[str]) -> None:
    """Uses that are no referrals, and accounts that are missing or there twice."""
    assert len(CONSISTENT.find_violations(uses, accounts)) == 1


def test_a_code_that_may_be_in_force_again_is_fine() -> None:
    """It was activated at some time between its end and the look."""
    again = Change("ann", "X", True, "B", 3.5, 9)  # noqa: FBT003 - a tuple
    history = replace(CONSISTENT, changes=[*CONSISTENT.changes, again], reads=[seen("X", "A", 6)])
    assert history.find_violations({"X": 1}, ["bob"]) == []


def test_two_processes_race_by_the_rules() -> None:
    """Some seconds of it; `make test-faults` races for longer."""
    figures = ScenarioReport()
    with make_testbed() as place, place.service() as one, place.service() as two:
        asyncio.run(race(figures, place, [one.url, two.url], RACE_SECONDS))
    assert figures.violations == []
    assert int(str(figures.values["of_which_overlapped"])) > RACE_SECONDS
