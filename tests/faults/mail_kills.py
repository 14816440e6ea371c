"""kill -9 of the worker around SMTP's 250, with few and with many mails waiting (row 26)."""

import asyncio
from dataclasses import asdict

from referral.settings import Settings
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed
from tests.faults.worker_kills import BACKLOG, kill_workers

KILLS = 200


def run(kills: int = KILLS) -> ScenarioReport:
    """Kill so many workers, and count what became of the mails."""
    figures = ScenarioReport()
    _kill(figures, kills, 1)
    _kill(figures, kills // 4, BACKLOG)
    return figures


def _kill(figures: ScenarioReport, kills: int, backlog: int) -> None:
    with make_testbed() as place:
        settings = Settings(
            data_dir=place.folder,
            database_url=place.database.url,
            signing_key_file=str(place.key),
        )
        outcome = asyncio.run(kill_workers(settings, place.sink, kills, backlog))
    where = f", {backlog} mails waiting"
    figures.record(**{name + where: value for name, value in asdict(outcome).items()})
    figures.check(holds=outcome.lost == 0, promise="no mail is lost" + where)
    figures.check(holds=outcome.left == 0, promise="nothing is stuck" + where)
    figures.check(holds=outcome.ids_per_mail == 1, promise="a mail has one Message-ID" + where)
    figures.check(
        holds=outcome.duplicates <= outcome.in_flight,
        promise="no more duplicates than mails in flight at the kills" + where,
    )
