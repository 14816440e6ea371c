"""SIGTERM under load (row 32): what was begun is finished, by the API and by the worker."""

import asyncio
import random
import time
from contextlib import suppress

import httpx

from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.support.api_client import API, PASSWORD, new_email
from tests.support.service_process import Service
from tests.support.waiting import wait_until

ROUNDS = 4
AT_ONCE = 24
END_SECONDS = 15.0


def run(rounds: int = ROUNDS) -> ScenarioReport:
    """Ask services and workers to end while they are busy, again and again."""
    figures = ScenarioReport()
    emails: list[str] = []
    answered, slowest = 0, 0.0
    with make_testbed() as place:
        for _ in range(rounds):
            with place.service() as service:
                fresh = [new_email() for _ in range(AT_ONCE)]
                answered += asyncio.run(_end_while_busy(service, fresh))
                began = time.monotonic()
                code = service.process.wait(END_SECONDS)
                slowest = max(slowest, time.monotonic() - began)
                figures.check(holds=code == 0, promise=f"the exit code is 0, and not {code}")
                emails += fresh
        figures.record(rounds=rounds, requests_in_flight=len(emails), answered=answered)
        figures.record(slowest_end=slowest)
        figures.check(holds=answered == len(emails), promise="requests in flight finish")
        asyncio.run(_mail(figures, place, emails))
    return figures


async def _end_while_busy(service: Service, emails: list[str]) -> int:
    """Send SIGTERM while registrations are at work; return how many succeeded."""
    async with httpx.AsyncClient(base_url=service.url, timeout=END_SECONDS) as client:
        body = [{"email": email, "password": PASSWORD} for email in emails]
        asked = [
            asyncio.create_task(client.post(f"{API}/auth/register", json=each)) for each in body
        ]
        # The first answer means that all are in, since they wait for one another's hashes.
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        service.process.terminate()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    return sum(isinstance(each, httpx.Response) and each.is_success for each in answers)


async def _mail(figures: ScenarioReport, place: Testbed, emails: list[str]) -> None:
    """End one worker after the other while it mails; the last one may finish."""
    place.sink.reply = lambda _: _slowly()
    ended = 0
    while ended < ROUNDS and len(place.sink.received) < len(emails):
        before = len(place.sink.received)
        with suppress(AssertionError), place.worker():
            await wait_until(lambda before=before: len(place.sink.received) > before)  # type: ignore[misc]
        ended += 1
    place.sink.reply = lambda _: "250 OK"
    with place.worker():
        await wait_until(lambda: len(place.sink.count_by_message_id()) >= len(emails))
    ids = place.sink.count_by_message_id()
    figures.record(workers_ended=ended, mails=len(ids), doubled=sum(ids.values()) - len(ids))
    figures.check(holds=len(ids) == len(emails), promise="the worker gives its jobs back")
    figures.check(holds=set(ids.values()) == {1}, promise="no mail comes twice")


def _slowly() -> str:
    time.sleep(random.uniform(0, 0.02))  # noqa: S311 - no secret
    return "250 OK"
