"""SMTP down, cut off, busy, refusing and hanging, while people register (row 27)."""

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
"""So many mails are refused for good."""


def run() -> ScenarioReport:
    """Let SMTP fail in every way under a crowd, and count what has arrived in the end."""
    figures = ScenarioReport()
    with make_testbed() as place:
        port = free_port()
        proxy = Proxy(("127.0.0.1", port), ("127.0.0.1", place.sink.port))
        proxy.start()
        told = {"smtp_url": f"smtp://127.0.0.1:{port}", "limit_mail": "off"}
        with place.service(**told) as service, place.worker(**told):
            asyncio.run(_trouble(figures, place, proxy, service.url))
        proxy.stop()
    return figures


async def _trouble(figures: ScenarioReport, place: Testbed, proxy: Proxy, url: str) -> None:
    async with run_workload(url, size=3, joining=0.1) as people:
        await asyncio.sleep(1)
        idle = await _phase(people)
        figures.record(p99_in_peace=idle)
        for name, (begin, end) in _phases(place, proxy).items():
            begin()
            p99 = await _phase(people)
            end()
            figures.record(**{f"p99_{name}": p99})
            figures.check(
                holds=p99 < idle + MORE_SECONDS, promise=f"{name}: the API does not notice"
            )
    figures.record(requests=len(people.requests), statuses=count_statuses(people.requests))
    figures.check(
        holds={each.status for each in people.requests} <= {200, 201}, promise="no request fails"
    )
    began = time.monotonic()
    held = await _drain(place)
    figures.check(holds=held > 0, promise="what is refused for good is held")
    put_back = await asyncio.to_thread(
        run_command, place.folder / "operator", "jobs", "retry", "--all", **place.settings()
    )
    figures.check(holds=put_back.returncode == 0, promise="an operator puts held jobs back")
    left = await _drain(place)
    figures.record(held_for_an_operator=held, held_at_the_end=left)
    figures.record(seconds_to_drain=time.monotonic() - began)
    _judge(figures, place, people)


def _judge(figures: ScenarioReport, place: Testbed, people: Workload) -> None:
    ids = Counter(mail.id for mail in place.sink.received)
    greeted = {mail.to for mail in place.sink.received}
    lost = len(people.accounts.keys() - greeted)
    figures.record(
        accounts=len(people.accounts),
        mails_sent=len(place.sink.received),
        doubled=sum(ids.values()) - len(ids),
        lost=lost,
    )
    figures.check(holds=lost == 0, promise="every account is greeted")
    figures.check(holds=set(ids.values()) == {1}, promise="no mail comes twice")


async def _phase(people: Workload) -> float:
    began = time.monotonic()
    await asyncio.sleep(PHASE_SECONDS)
    return percentile(people.between(began), 0.99)


def _phases(
    place: Testbed, proxy: Proxy
) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Return how each trouble begins and ends."""
    sink, refused = place.sink, Counter[str]()

    def say(text: str) -> Callable[[], None]:
        def begin() -> None:
            sink.reply = lambda _: text

        return begin

    def refuse() -> None:
        def answer(mail: ReceivedMail) -> str:
            refused[mail.id] += 1
            return "550 No" if len(refused) <= REFUSED else "250 OK"

        sink.reply = answer

    def take() -> None:
        sink.reply = lambda _: "250 OK"

    def fall_silent() -> None:
        proxy.is_silent = True

    def speak() -> None:
        proxy.is_silent = False
        proxy.reset()

    def slow_down() -> None:
        proxy.latency = 0.5

    def speed_up() -> None:
        proxy.latency = 0.0

    return {
        "down": (sink.stop, sink.start),
        "busy": (say("451 Later"), take),
        "refusing": (refuse, take),
        "reset": (proxy.reset, lambda: None),
        "slow": (slow_down, speed_up),
        "silent": (fall_silent, speak),
    }


async def _drain(place: Testbed) -> int:
    """Wait until no job waits or runs; return how many are held."""
    monitor = JobAdmin(place.database.url)

    async def is_drained() -> bool:
        return not sum(state.waiting + state.running for state in await monitor.stats())

    await wait_for_value(is_drained, DRAIN_SECONDS)
    return sum(state.held for state in await monitor.stats())
