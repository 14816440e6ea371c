"""Random histories, other ones each time, whose requests overlap, held against the rules."""

from hypothesis.errors import Flaky

from referral.adapters.observability.logs import configure_logging
from referral.settings import Settings
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed
from tests.integration.test_random_histories import CodesMachine, run_histories
from tests.support.api_client import UNLIMITED_SETTINGS
from tests.support.fakes.ports import FakeClock

HISTORIES, STEPS = 300, 25


def run(histories: int = HISTORIES) -> ScenarioReport:
    """Let Hypothesis try, without the seed of the ordinary tests."""
    figures = ScenarioReport()
    configure_logging("json", "error")
    with make_testbed() as place:
        settings = Settings(
            data_dir=place.folder,
            database_url=place.database.url,
            signing_key_file=str(place.key),
            worker="off",
            email_verification="off",
            **UNLIMITED_SETTINGS,
        )
        CodesMachine.histories = CodesMachine.schedules = 0
        try:
            run_histories(settings, FakeClock(), max_examples=histories, stateful_step_count=STEPS)
        except (AssertionError, Flaky) as error:
            figures.violations.append(f"the rules and the service disagree: {error}")
    figures.record(
        histories=CodesMachine.histories,
        steps_each_at_most=STEPS,
        steps_at_once=CodesMachine.schedules,
    )
    figures.check(holds=CodesMachine.histories >= histories, promise="all histories were tried")
    return figures
