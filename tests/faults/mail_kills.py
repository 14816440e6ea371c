"""kill -9 of the worker around SMTP's final 250, with a small and a large backlog (row 26)."""

import asyncio
from dataclasses import asdict

from referral.settings import Settings
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed
from tests.faults.worker_kills import BACKLOG, kill_workers

KILLS = 200


def run(kills: int = KILLS) -> ScenarioReport:
    """Kill workers, and count the e-mails that were sent, lost and duplicated."""
    report = ScenarioReport()
    _kill(report, kills, 1)
    _kill(report, kills // 4, BACKLOG)
    return report


def _kill(report: ScenarioReport, kills: int, backlog: int) -> None:
    with make_testbed() as testbed:
        settings = Settings(
            data_dir=testbed.folder,
            database_url=testbed.database.url,
            signing_key_file=str(testbed.key),
        )
        outcome = asyncio.run(kill_workers(settings, testbed.sink, kills, backlog))
    suffix = f", backlog of {backlog} mails"
    report.record(**{name + suffix: value for name, value in asdict(outcome).items()})
    report.check(holds=outcome.lost == 0, promise="no mail is lost" + suffix)
    report.check(holds=outcome.left == 0, promise="nothing is stuck" + suffix)
    report.check(holds=outcome.ids_per_mail == 1, promise="a mail has one Message-ID" + suffix)
    report.check(
        holds=outcome.duplicates <= outcome.in_flight,
        promise="no more duplicates than mails in flight at the kills" + suffix,
    )
