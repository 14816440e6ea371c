"""Random histories, other ones each time, whose requests overlap, held against the rules."""

from hypothesis.errors import Flaky

from referral.adapters.observability.logs import set_up_logs
from referral.settings import Settings
from tests.faults.figures import Figures
from tests.faults.place import a_place
from tests.integration.test_model import Codes, explore
from tests.support.fakes import FakeClock
from tests.support.journey import UNLIMITED

HISTORIES, STEPS = 300, 25


def run(histories: int = HISTORIES) -> Figures:
    """Let Hypothesis try, without the seed of the ordinary tests."""
    figures = Figures()
    set_up_logs("json", "error")
    with a_place() as place:
        settings = Settings(
            data_dir=place.folder,
            database_url=place.database.url,
            signing_key_file=str(place.key),
            worker="off",
            email_verification="off",
            **UNLIMITED,
        )
        Codes.histories = Codes.schedules = 0
        try:
            explore(settings, FakeClock(), max_examples=histories, stateful_step_count=STEPS)
        except (AssertionError, Flaky) as error:
            figures.broken.append(f"the rules and the service disagree: {error}")
    figures.count(
        histories=Codes.histories, steps_each_at_most=STEPS, steps_at_once=Codes.schedules
    )
    figures.promise(holds=Codes.histories >= histories, that="all histories were tried")
    return figures
