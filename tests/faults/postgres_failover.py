"""PostgreSQL's primary killed, frozen and cut off under load, and a planned switchover (row 45).

The scenario is the cluster manager: it promotes the standby, and brings the old primary back as if
it were still one, before it becomes the standby of the next round.
"""

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from referral.adapters.postgres.migrations import migrate
from tests.conftest import execute, fetch_value
from tests.faults.proxy import Proxy
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import (
    SUCCESS,
    RequestRecord,
    Workload,
    count_statuses,
    percentile,
    run_workload,
)
from tests.support.postgres_servers import PostgresServer, closing_server, server_folder
from tests.support.service_process import free_port
from tests.support.waiting import wait_for_value, wait_until

ROUNDS = 10
DETECTION_SECONDS = 1.5
"""Time that a cluster manager takes to notice that the primary is gone."""

RETURN_SECONDS = 2.0
"""Time for which the old primary serves beside the new one."""

MAX_RECOVERY_SECONDS = 5.0
MAX_SWITCHOVER_SECONDS = 2.0
MAX_RESPONSE_SECONDS = 5.0
"""A wait for the pool, a connection, a statement, and a margin."""
UNAVAILABLE = 503
EXPECTED_STATUSES = {200, 201, 204, UNAVAILABLE}
REPLACED_CODE_STATUS = 422
"""Of a registration with a code that a request without an acknowledgement has replaced."""

IS_SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
LATE_ACCOUNTS = "SELECT count(*) FROM users WHERE created_at > $1"
SECOND_CODES = "SELECT count(*) - count(DISTINCT user_id) FROM codes WHERE enabled"
OPEN_JOBS = "SELECT count(*) FROM pgqueuer"


@dataclass(frozen=True)
class Node:
    """A server, and the proxy through which the service and the other server reach it."""

    server: PostgresServer
    proxy: Proxy
    port: int

    async def set_synchronous(self, names: str) -> None:
        """Wait for these standbys at each commit."""
        await execute(self.server.url, f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await execute(self.server.url, "SELECT pg_reload_conf()")


@dataclass
class Cluster:
    """A primary with a synchronous standby, which change places."""

    primary: Node
    standby: Node

    async def promote(self) -> None:
        """Promote the standby; it waits for no standby of its own yet."""
        await self.standby.set_synchronous("")
        await asyncio.to_thread(self.standby.server.promote)
        self.primary, self.standby = self.standby, self.primary

    async def rejoin(self) -> None:
        """Make the old primary a standby of the new one, and wait until it is synchronous."""
        await asyncio.to_thread(self.standby.server.kill)
        await asyncio.to_thread(self.standby.server.clone, self.primary.server)
        await self.synchronize()

    async def synchronize(self) -> None:
        """Start the standby, and wait until it is synchronous."""
        await asyncio.to_thread(self.standby.server.start_standby, self.primary.port)
        await self.primary.set_synchronous("*")
        await wait_for_value(lambda: fetch_value(self.primary.server.url, IS_SYNCHRONOUS))


def run(rounds: int = ROUNDS) -> ScenarioReport:
    """Fail over in rounds, then switch over, under a workload with mails."""
    report = ScenarioReport()
    with make_testbed() as testbed, make_nodes() as nodes:
        nodes[0].server.initialize()
        nodes[0].server.start()
        migrate(nodes[0].server.url)
        nodes[1].server.clone(nodes[0].server)
        cluster = Cluster(*nodes)
        asyncio.run(cluster.synchronize())
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        url = f"postgresql://postgres@127.0.0.1:{free_port()},{hosts}/postgres"
        settings = {"database_url": url, "limit_mail": "off"}
        with testbed.service(**settings) as service, testbed.worker(**settings) as worker:
            asyncio.run(_fail_over(report, testbed, cluster, service.url, rounds))
            report.check(
                holds=service.process.poll() is None and worker.poll() is None,
                promise="no process was restarted",
            )
    return report


@contextmanager
def make_nodes() -> Iterator[list[Node]]:
    """Make two servers with a proxy each."""
    with ExitStack() as stack:
        folder = stack.enter_context(server_folder())
        nodes = []
        for _ in range(2):
            server, port = stack.enter_context(closing_server(folder)), free_port()
            proxy = Proxy(("127.0.0.1", port), ("127.0.0.1", server.port))
            proxy.start()
            stack.callback(proxy.stop)
            nodes.append(Node(server, proxy, port))
        yield nodes


async def _fail_over(
    report: ScenarioReport, testbed: Testbed, cluster: Cluster, url: str, rounds: int
) -> None:
    async with run_workload(url, size=6, registering=0.2) as workload:
        await workload.warm_up()
        recoveries = []
        for number, fault in zip(range(rounds), itertools.cycle(FAULTS)):
            recoveries.append(await _round(report, cluster, workload, fault))
            report.record(**{f"{number + 1}. {fault}": f"writes {recoveries[-1]:.2f} s later"})
        report.check(
            holds=max(recoveries) < MAX_RECOVERY_SECONDS,
            promise=f"writes within {MAX_RECOVERY_SECONDS:.0f} s of the promotion",
        )
        await _switch_over(report, cluster, workload)
    await judge(report, testbed, cluster.primary.server.url, workload)


async def _round(report: ScenarioReport, cluster: Cluster, workload: Workload, fault: str) -> float:
    """Return the seconds from the promotion to the first write of every member."""
    old = cluster.primary
    begin, end = FAULTS[fault]
    await asyncio.to_thread(begin, old)
    await asyncio.sleep(DETECTION_SECONDS)
    await cluster.promote()
    promoted, promoted_at = time.monotonic(), datetime.now(UTC)
    await wait_for_writes(workload, promoted)
    recovered = time.monotonic() - promoted
    await asyncio.to_thread(end, old)
    await asyncio.sleep(RETURN_SECONDS)
    late = await fetch_value(old.server.url, LATE_ACCOUNTS, promoted_at)
    report.check(holds=late == 0, promise=f"{fault}: the old primary is not written to, not {late}")
    await cluster.rejoin()
    return recovered


async def wait_for_writes(workload: Workload, since: float) -> None:
    """Wait until two writes that began after a moment have succeeded."""

    def is_back() -> bool:
        requests = [r for r in workload.between(since) if r.kind in {"register", "issue"}]
        return sum(request.status in SUCCESS for request in requests) > 1

    await wait_until(is_back)


async def _switch_over(report: ScenarioReport, cluster: Cluster, workload: Workload) -> None:
    """Stop the primary, which sends all its WAL to the standby, and promote it."""
    started = time.monotonic()
    await asyncio.to_thread(cluster.primary.server.stop)
    await cluster.promote()
    await wait_for_writes(workload, time.monotonic())
    judge_switchover(report, workload, started)


def judge_switchover(
    report: ScenarioReport,
    workload: Workload,
    started: float,
    max_seconds: float = MAX_SWITCHOVER_SECONDS,
) -> None:
    """Check for how long requests were 503."""
    failed = [r for r in workload.between(started) if r.status == UNAVAILABLE]
    seconds = max((r.started_at + r.seconds for r in failed), default=started) - min(
        (r.started_at for r in failed), default=started
    )
    report.record(switchover=f"503 for {seconds:.2f} s, {len(failed)} responses")
    report.check(
        holds=seconds < max_seconds,
        promise=f"a switchover has less than {max_seconds:.0f} s of 503",
    )


async def judge(report: ScenarioReport, testbed: Testbed, url: str, workload: Workload) -> None:
    """Check what the primary has stored, the mails, and the responses."""

    async def is_drained() -> bool:
        return await fetch_value(url, OPEN_JOBS) == 0

    await wait_for_value(is_drained)
    connection = await asyncpg.connect(url)
    lost = await workload.count_lost_writes(connection)
    second_codes = await connection.fetchval(SECOND_CODES)
    await connection.close()
    recipients = {mail.to for mail in testbed.sink.received}
    lost_mails = len(workload.accounts.keys() - recipients)
    copies = testbed.sink.count_by_message_id()
    requests = workload.requests
    report.record(
        requests=len(requests),
        statuses=count_statuses(requests),
        worst_response=percentile(requests, 1),
        acknowledged=workload.acknowledged_writes,
        lost=lost,
        mails=len(copies),
        lost_mails=lost_mails,
        duplicates=copies.total() - len(copies),
        errors=dict(workload.errors),
    )
    report.check(holds=lost == 0, promise="every acknowledged write is stored")
    report.check(holds=lost_mails == 0, promise="every acknowledged account got its mail")
    report.check(holds=second_codes == 0, promise="no user has a second active code")
    report.check(
        holds={r.status for r in requests if not _has_replaced_code(r)} <= EXPECTED_STATUSES,
        promise="every request gets a success or 503",
    )
    report.check(
        holds=not workload.errors["503 without Retry-After"], promise="every 503 has Retry-After"
    )
    report.check(
        holds=percentile(requests, 1) < MAX_RESPONSE_SECONDS,
        promise=f"every response within {MAX_RESPONSE_SECONDS:.0f} s",
    )


def _has_replaced_code(request: RequestRecord) -> bool:
    return request.kind == "register" and request.status == REPLACED_CODE_STATUS


def _restart_as_primary(node: Node) -> None:
    node.server.start()


def _cut(node: Node) -> None:
    node.proxy.is_held = True


def _mend(node: Node) -> None:
    node.proxy.is_held = False


FAULTS: dict[str, tuple[Callable[[Node], None], Callable[[Node], None]]] = {
    "killed": (lambda node: node.server.kill(), _restart_as_primary),
    "frozen": (
        lambda node: node.server.signal(signal.SIGSTOP),
        lambda node: node.server.signal(signal.SIGCONT),
    ),
    "cut off": (_cut, _mend),
}
