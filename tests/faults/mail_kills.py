"""kill -9 of the worker around SMTP's 250, with few and with many mails waiting (row 26)."""

import asyncio
from dataclasses import asdict

from referral.settings import Settings
from tests.faults.figures import Figures
from tests.faults.place import a_place
from tests.faults.worker_kills import BACKLOG, kill_workers

KILLS = 200


def run(kills: int = KILLS) -> Figures:
    """Kill so many workers, and count what became of the mails."""
    figures = Figures()
    _kill(figures, kills, 1)
    _kill(figures, kills // 4, BACKLOG)
    return figures


def _kill(figures: Figures, kills: int, backlog: int) -> None:
    with a_place() as place:
        settings = Settings(
            data_dir=place.folder,
            database_url=place.database.url,
            signing_key_file=str(place.key),
        )
        outcome = asyncio.run(kill_workers(settings, place.sink, kills, backlog))
    where = f", {backlog} mails waiting"
    figures.count(**{name + where: value for name, value in asdict(outcome).items()})
    figures.promise(holds=outcome.lost == 0, that="no mail is lost" + where)
    figures.promise(holds=outcome.left == 0, that="nothing is stuck" + where)
    figures.promise(holds=outcome.ids_per_mail == 1, that="a mail has one Message-ID" + where)
    figures.promise(
        holds=outcome.duplicates <= outcome.in_flight,
        that="no more duplicates than mails in flight at the kills" + where,
    )
