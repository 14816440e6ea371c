"""kill -9 of the worker around SMTP's 250 (row 26)."""

import asyncio
from dataclasses import asdict

from referral.settings import Settings
from tests.faults.figures import Figures
from tests.faults.place import a_place
from tests.faults.worker_kills import kill_workers

KILLS = 200


def run(kills: int = KILLS) -> Figures:
    """Kill so many workers, and count what became of the mails."""
    figures = Figures()
    with a_place() as place:
        settings = Settings(
            data_dir=place.folder,
            database_url=place.database.url,
            signing_key_file=str(place.key),
        )
        outcome = asyncio.run(kill_workers(settings, place.sink, kills))
    figures.count(**asdict(outcome))
    figures.promise(holds=outcome.lost == 0, that="no mail is lost")
    figures.promise(holds=outcome.left == 0, that="nothing is stuck")
    figures.promise(holds=outcome.ids_per_mail == 1, that="a mail has one Message-ID")
    figures.promise(
        holds=outcome.duplicates <= outcome.in_flight,
        that="no more duplicates than mails in flight at the kills",
    )
    return figures
