"""The same faults in a cluster that Patroni manages with etcd, from Debian's packages (row 45)."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence

from referral.adapters.postgres.migrations import migrate
from tests.faults.postgres_failover import (
    MAX_RECOVERY_SECONDS,
    judge,
    judge_switchover,
    wait_for_writes,
)
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import Workload, run_workload
from tests.support.patroni import PatroniNode, missing_programs, run_patroni
from tests.support.waiting import wait_for_value

MAX_SWITCHOVER_SECONDS = 5.0
"""Patroni's own steps take most of it."""

Nodes = Sequence[PatroniNode]


def run() -> ScenarioReport:
    """Kill the primary, freeze its machine, and switch over, under a workload with mails."""
    report = ScenarioReport()
    if missing := missing_programs():
        report.record(left_out=f"{' and '.join(missing)} not installed")
        return report
    with make_testbed() as testbed, run_patroni() as nodes:
        primary, _ = asyncio.run(_find_roles(nodes))
        migrate(primary.url)
        settings = {
            "database_url": f"{primary.url.partition('@')[0]}@"
            f"{','.join(node.address for node in nodes)}/postgres",
            "limit_mail": "off",
        }
        with testbed.service(**settings) as service, testbed.worker(**settings) as worker:
            asyncio.run(_fail_over(report, testbed, nodes, service.url))
            report.check(
                holds=service.process.poll() is None and worker.poll() is None,
                promise="no process was restarted",
            )
    return report


async def _fail_over(report: ScenarioReport, testbed: Testbed, nodes: Nodes, url: str) -> None:
    async with run_workload(url, size=6, registering=0.2) as workload:
        await workload.warm_up()
        for name, (begin, end) in FAULTS.items():
            old, _ = await _find_roles(nodes)
            begin(old)
            await _check_recovery(report, name, [node for node in nodes if node != old], workload)
            end(old)
        old, candidate = await _find_roles(nodes)
        started = time.monotonic()
        await asyncio.to_thread(old.switch_over, candidate.name)
        await wait_for_writes(workload, time.monotonic())
        judge_switchover(report, workload, started, MAX_SWITCHOVER_SECONDS)
    primary, _ = await _find_roles(nodes)
    await judge(report, testbed, primary.url, workload)


async def _check_recovery(
    report: ScenarioReport, fault: str, others: Nodes, workload: Workload
) -> None:
    """Wait until another node is the primary, and check when writes succeed again."""
    started = time.monotonic()
    await wait_for_value(lambda: _find(others, "primary"))
    promoted = time.monotonic()
    await wait_for_writes(workload, promoted)
    seconds = time.monotonic() - promoted
    report.record(
        **{fault: f"promotion after {promoted - started:.1f} s, writes {seconds:.2f} s later"}
    )
    report.check(
        holds=seconds < MAX_RECOVERY_SECONDS,
        promise=f"{fault}: writes within {MAX_RECOVERY_SECONDS:.0f} s of the promotion",
    )


async def _find_roles(nodes: Nodes) -> tuple[PatroniNode, PatroniNode]:
    """Wait until there is a primary with a synchronous standby, and return both."""
    primary, *_ = await wait_for_value(lambda: _find(nodes, "primary"))
    standby, *_ = await wait_for_value(lambda: _find(nodes, "synchronous"))
    return primary, standby


async def _find(nodes: Nodes, role: str) -> list[PatroniNode]:
    return [node for node in nodes if await asyncio.to_thread(node.has_role, role)]


FAULTS: dict[str, tuple[Callable[[PatroniNode], None], Callable[[PatroniNode], None]]] = {
    "server killed": (lambda node: node.signal_server(signal.SIGKILL), lambda _: None),
    "machine frozen": (
        lambda node: node.signal(signal.SIGSTOP),
        lambda node: node.signal(signal.SIGCONT),
    ),
}
