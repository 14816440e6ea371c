"""SMTP down, cut off, busy, rejecting and hanging, while users register (row 27)."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from referral.adapters.jobs.admin import JobAdmin
from tests.faults.proxy import Proxy
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import Workload, count_statuses, percentile, run_workload
from tests.support.service_process import free_port, run_command
from tests.support.smtp_sink import ReceivedMail
from tests.support.waiting import wait_for_value

PHASE_SECONDS = 5.0
MORE_SECONDS = 0.1
DRAIN_SECONDS = 60.0
REFUSED = 20
"""The number of permanently rejected e-mails."""


def run() -> ScenarioReport:
    """Run a workload while SMTP has faults, and count the delivered e-mails."""
    report = ScenarioReport()
    with make_testbed() as testbed:
        port = free_port()
        proxy = Proxy(("127.0.0.1", port), ("127.0.0.1", testbed.sink.port))
        proxy.start()
        settings = {"smtp_url": f"smtp://127.0.0.1:{port}", "limit_mail": "off"}
        with testbed.service(**settings) as service, testbed.worker(**settings):
            asyncio.run(_inject_faults(report, testbed, proxy, service.url))
        proxy.stop()
    return report


async def _inject_faults(report: ScenarioReport, testbed: Testbed, proxy: Proxy, url: str) -> None:
    async with run_workload(url, size=3, registering=0.1) as workload:
        await workload.warm_up()
        idle = await _measure_p99(workload)
        report.record(p99_idle=idle)
        for name, (begin, end) in _faults(testbed, proxy).items():
            begin()
            p99 = await _measure_p99(workload)
            end()
            report.record(**{f"p99_{name}": p99})
            report.check(
                holds=p99 < idle + MORE_SECONDS, promise=f"{name}: p99 at most 100 ms more"
            )
    report.record(requests=len(workload.requests), statuses=count_statuses(workload.requests))
    report.check(
        holds={request.status for request in workload.requests} <= {200, 201},
        promise="no request fails",
    )
    started = time.monotonic()
    held = await _drain(testbed)
    report.check(holds=held > 0, promise="permanently rejected mails are held")
    retried = await asyncio.to_thread(
        run_command, testbed.folder / "operator", "jobs", "retry", "--all", **testbed.settings()
    )
    report.check(holds=retried.returncode == 0, promise="an operator can retry held jobs")
    still_held = await _drain(testbed)
    report.record(held_for_an_operator=held, held_at_the_end=still_held)
    report.record(seconds_to_drain=time.monotonic() - started)
    _judge(report, testbed, workload)


def _judge(report: ScenarioReport, testbed: Testbed, workload: Workload) -> None:
    ids = Counter(mail.id for mail in testbed.sink.received)
    greeted = {mail.to for mail in testbed.sink.received}
    lost = len(workload.accounts.keys() - greeted)
    report.record(
        accounts=len(workload.accounts),
        mails_sent=len(testbed.sink.received),
        doubled=sum(ids.values()) - len(ids),
        lost=lost,
    )
    report.check(holds=lost == 0, promise="every account gets its welcome mail")
    report.check(holds=set(ids.values()) == {1}, promise="no mail is sent twice")


async def _measure_p99(workload: Workload) -> float:
    started = time.monotonic()
    await asyncio.sleep(PHASE_SECONDS)
    return percentile(workload.between(started), 0.99)


def _faults(
    testbed: Testbed, proxy: Proxy
) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Return how each fault begins and ends."""
    sink, rejected = testbed.sink, Counter[str]()

    def reply_with(text: str) -> Callable[[], None]:
        def begin() -> None:
            sink.reply = lambda _: text

        return begin

    def reject_some() -> None:
        def reply(mail: ReceivedMail) -> str:
            rejected[mail.id] += 1
            return "550 No" if len(rejected) <= REFUSED else "250 OK"

        sink.reply = reply

    def accept() -> None:
        sink.reply = lambda _: "250 OK"

    def silence() -> None:
        proxy.is_silent = True

    def unsilence() -> None:
        proxy.is_silent = False
        proxy.reset()

    def slow_down() -> None:
        proxy.latency = 0.5

    def speed_up() -> None:
        proxy.latency = 0.0

    return {
        "down": (sink.stop, sink.start),
        "busy": (reply_with("451 Later"), accept),
        "refusing": (reject_some, accept),
        "reset": (proxy.reset, lambda: None),
        "slow": (slow_down, speed_up),
        "silent": (silence, unsilence),
    }


async def _drain(testbed: Testbed) -> int:
    """Wait until no job waits or runs; return the number of held jobs."""
    job_admin = JobAdmin(testbed.database.url)

    async def is_drained() -> bool:
        return not sum(state.waiting + state.running for state in await job_admin.stats())

    await wait_for_value(is_drained, DRAIN_SECONDS)
    return sum(state.held for state in await job_admin.stats())
