"""Short fault scenarios, and the exit code of `make test-faults`."""

import asyncio

import pytest

from tests.faults import __main__ as faults
from tests.faults.api_kills import run_campaign
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed

KILLS = 6


def test_killed_api_loses_no_acknowledged_write() -> None:
    """Kills hit around the commit; a retry with its key has one effect and one job."""
    with make_testbed() as testbed:
        report = asyncio.run(run_campaign(testbed, KILLS))
    assert report.violations == []
    assert report.values["kills"] == KILLS
    assert int(str(report.values["unanswered_at_the_kill"])) > 0


@pytest.mark.parametrize(
    ("scenario", "fails"),
    [
        (lambda: ScenarioReport({"lost": 0}), False),
        (lambda: ScenarioReport({"lost": 1}, ["nothing is lost"]), True),
        (lambda: ScenarioReport({"share": 1 / 0}), True),
    ],
)
def test_broken_promise_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scenario: object,
    *,
    fails: bool,
) -> None:
    """A broken promise and an exception exit with 1; the figures are printed."""
    monkeypatch.setattr(faults, "SCENARIOS", {"ours": scenario})
    monkeypatch.setattr("sys.argv", ["faults", "ours"])
    with pytest.raises(SystemExit) as ended:
        faults.main()
    assert ended.value.code == fails
    printed = capsys.readouterr().out
    assert "ours" in printed
    assert ("BROKEN" in printed) == fails


def test_unknown_scenario_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error lists the known scenarios."""
    monkeypatch.setattr("sys.argv", ["faults", "nothing"])
    with pytest.raises(SystemExit, match="api-kills"):
        faults.main()
