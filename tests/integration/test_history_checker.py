"""The history checker finds violations, and a real race produces none."""

import asyncio
from dataclasses import replace

import pytest

from tests.faults.history import Change, History, Read, Registration
from tests.faults.races import race
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed

RACE_SECONDS = 4


def created(code: str, began: float, ended: float, *, replaced: bool = True) -> Change:
    """A code created by process A."""
    return Change("ann", code, True, "A", began, ended, replaced)  # noqa: FBT003 - a tuple


def deleted(code: str, began: float, ended: float) -> Change:
    """A code deleted by process A."""
    return Change("ann", code, False, "A", began, ended)  # noqa: FBT003 - a tuple


def shown(code: str, process: str, began: float, *, cached: bool = True) -> Read:
    """A code shown in a response that took 0.1 s."""
    return Read("ann", frozenset({code}), process, began, began + 0.1, cached)


def registered(code: str, began: float, email: str = "bob") -> Registration:
    """A registration with a code that took 0.1 s."""
    return Registration("ann", code, email, began, began + 0.1)


CONSISTENT = History(
    [created("X", 0, 1), deleted("X", 3, 4)], [shown("X", "A", 2)], [registered("X", 2)]
)

ALLOWED_READS = {
    "shown by another process within a second": [shown("X", "B", 4.9)],
    "shown while it ends": [shown("X", "A", 3.9)],
}

VIOLATIONS = {
    "two active codes": replace(
        CONSISTENT,
        reads=[Read("ann", frozenset({"X", "Y"}), "A", 2, 2.1, cached=False)],
        changes=[created("X", 0, 1), created("Y", 0, 3)],
    ),
    "created beside another": replace(
        CONSISTENT, changes=[*CONSISTENT.changes, created("Y", 1.5, 2.5, replaced=False)]
    ),
    "shown by the same process": replace(CONSISTENT, reads=[shown("X", "A", 4.1)]),
    "shown by another process after a second": replace(CONSISTENT, reads=[shown("X", "B", 5.1)]),
    "listed by another process": replace(CONSISTENT, reads=[shown("X", "B", 4.1, cached=False)]),
    "shown after it was replaced": replace(
        CONSISTENT, changes=[created("X", 0, 1), created("Y", 1, 2)], reads=[shown("X", "A", 2.1)]
    ),
    "credited after its end": replace(CONSISTENT, registrations=[registered("X", 4.1)]),
    "acknowledged twice": replace(
        CONSISTENT, registrations=[registered("X", 2), registered("X", 2.5)]
    ),
}


def test_consistent_history_has_no_violation() -> None:
    """A code is created, shown, used and deleted."""
    assert CONSISTENT.find_violations({"X": 1}, ["bob"]) == []


@pytest.mark.parametrize("reads", ALLOWED_READS.values(), ids=ALLOWED_READS)
def test_stale_read_within_the_bound_is_allowed(reads: list[Read]) -> None:
    """Caches may show a code for a bounded time after its end."""
    assert replace(CONSISTENT, reads=reads).find_violations({"X": 1}, ["bob"]) == []


@pytest.mark.parametrize("history", VIOLATIONS.values(), ids=VIOLATIONS)
def test_each_violation_is_found(history: History) -> None:
    """Each history has one violation, and the checker reports exactly one."""
    uses = {"X": len(history.registrations)}
    assert len(history.find_violations(uses, ["bob"])) == 1


@pytest.mark.parametrize(
    ("uses", "accounts"),
    [({"X": 2}, ["bob"]), ({}, ["bob"]), ({"X": 1}, []), ({"X": 1}, ["bob"] * 2)],
)
def test_wrong_totals_are_found(uses: dict[str, int], accounts: list[str]) -> None:
    """Uses without a registration, and accounts that are missing or duplicate, are reported."""
    assert len(CONSISTENT.find_violations(uses, accounts)) == 1


def test_code_that_may_be_active_again_is_allowed() -> None:
    """The code may have been activated again between its end and the read."""
    again = Change("ann", "X", True, "B", 3.5, 9)  # noqa: FBT003 - a tuple
    history = replace(CONSISTENT, changes=[*CONSISTENT.changes, again], reads=[shown("X", "A", 6)])
    assert history.find_violations({"X": 1}, ["bob"]) == []


def test_two_processes_race_without_violation() -> None:
    """A race of a few seconds; `make test-faults` runs a longer one."""
    report = ScenarioReport()
    with make_testbed() as testbed, testbed.service() as one, testbed.service() as two:
        asyncio.run(race(report, testbed, [one.url, two.url], RACE_SECONDS))
    assert report.violations == []
    assert int(str(report.values["of_which_overlapped"])) > RACE_SECONDS
