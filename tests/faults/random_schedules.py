"""Random concurrent histories, new ones in each run, checked against the model."""

from hypothesis.errors import Flaky

from referral.adapters.observability.logs import configure_logging
from referral.settings import Settings
from tests.faults.report import ScenarioReport
from tests.faults.testbed import make_testbed
from tests.integration.test_random_histories import CodesMachine, run_histories
from tests.support.api_client import UNLIMITED_SETTINGS
from tests.support.fakes.system import FakeClock

HISTORIES, STEPS = 300, 25


def run(histories: int = HISTORIES) -> ScenarioReport:
    """Run Hypothesis without the fixed seed of the ordinary test."""
    report = ScenarioReport()
    configure_logging("json", "error")
    with make_testbed() as testbed:
        settings = Settings(
            data_dir=testbed.folder,
            database_url=testbed.database.url,
            signing_key_file=str(testbed.key),
            worker="off",
            email_verification="off",
            **UNLIMITED_SETTINGS,
        )
        CodesMachine.histories = CodesMachine.schedules = 0
        try:
            run_histories(settings, FakeClock(), max_examples=histories, stateful_step_count=STEPS)
        except (AssertionError, Flaky) as error:
            report.violations.append(f"the service violates the model: {error}")
    report.record(
        histories=CodesMachine.histories,
        steps_each_at_most=STEPS,
        steps_at_once=CodesMachine.schedules,
    )
    report.check(holds=CodesMachine.histories >= histories, promise="all histories were run")
    return report
