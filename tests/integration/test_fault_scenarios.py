"""The scenarios of `make test-faults`: short ones here, and that a broken promise is an error."""

import asyncio

import pytest

from tests.faults import __main__ as faults
from tests.faults.api_kills import campaign
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed

KILLS = 6


def test_nothing_acknowledged_is_lost_when_the_api_is_killed() -> None:
    """Around the commit; a retry with its key completes, and has one effect and one mail job."""
    with make_testbed() as place:
        figures = asyncio.run(campaign(place, KILLS))
    assert figures.violations == []
    assert figures.values["kills"] == KILLS
    assert int(str(figures.values["unanswered_at_the_kill"])) > 0


@pytest.mark.parametrize(
    ("scenario", "code"),
    [
        (lambda: ScenarioReport({"lost": 0}), False),
        (lambda: ScenarioReport({"lost": 1}, ["nothing is lost"]), True),
        (lambda: ScenarioReport({"share": 1 / 0}), True),
    ],
)
def test_a_broken_promise_ends_with_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scenario: object,
    *,
    code: bool,
) -> None:
    """And so does a scenario that fails; the figures are printed."""
    monkeypatch.setattr(faults, "SCENARIOS", {"ours": scenario})
    monkeypatch.setattr("sys.argv", ["faults", "ours"])
    with pytest.raises(SystemExit) as ended:
        faults.main()
    assert ended.value.code == code
    printed = capsys.readouterr().out
    assert "ours" in printed
    assert ("BROKEN" in printed) == code


def test_an_unknown_scenario_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names that there are."""
    monkeypatch.setattr("sys.argv", ["faults", "nothing"])
    with pytest.raises(SystemExit, match="api-kills"):
        faults.main()
