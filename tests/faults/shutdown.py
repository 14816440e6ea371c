"""SIGTERM under load (row 32): what was begun is finished, by the API and by the worker."""

import asyncio
import random
import time
from contextlib import suppress

import httpx

from tests.faults.figures import Figures
from tests.faults.place import Place, a_place
from tests.support.journey import API, PASSWORD, new_email
from tests.support.processes import Service
from tests.support.waiting import until

ROUNDS = 4
AT_ONCE = 24
END_SECONDS = 15.0


def run(rounds: int = ROUNDS) -> Figures:
    """Ask services and workers to end while they are busy, again and again."""
    figures = Figures()
    emails: list[str] = []
    answered, slowest = 0, 0.0
    with a_place() as place:
        for _ in range(rounds):
            with place.service() as service:
                fresh = [new_email() for _ in range(AT_ONCE)]
                answered += asyncio.run(_end_while_busy(service, fresh))
                began = time.monotonic()
                code = service.process.wait(END_SECONDS)
                slowest = max(slowest, time.monotonic() - began)
                figures.promise(holds=code == 0, that=f"the exit code is 0, and not {code}")
                emails += fresh
        figures.count(rounds=rounds, requests_in_flight=len(emails), answered=answered)
        figures.count(slowest_end=slowest)
        figures.promise(holds=answered == len(emails), that="requests in flight finish")
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


async def _mail(figures: Figures, place: Place, emails: list[str]) -> None:
    """End one worker after the other while it mails; the last one may finish."""
    place.sink.answer = lambda _: _slowly()
    ended = 0
    while ended < ROUNDS and len(place.sink.received) < len(emails):
        before = len(place.sink.received)
        with suppress(AssertionError), place.worker():
            await until(lambda before=before: len(place.sink.received) > before)  # type: ignore[misc]
        ended += 1
    place.sink.answer = lambda _: "250 OK"
    with place.worker():
        await until(lambda: len(place.sink.ids()) >= len(emails))
    ids = place.sink.ids()
    figures.count(workers_ended=ended, mails=len(ids), doubled=sum(ids.values()) - len(ids))
    figures.promise(holds=len(ids) == len(emails), that="the worker gives its jobs back")
    figures.promise(holds=set(ids.values()) == {1}, that="no mail comes twice")


def _slowly() -> str:
    time.sleep(random.uniform(0, 0.02))  # noqa: S311 - no secret
    return "250 OK"
