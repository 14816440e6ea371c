"""SIGTERM under load (row 32): API and worker finish what is in flight."""

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
    """Stop busy services and workers, several times."""
    report = ScenarioReport()
    emails: list[str] = []
    answered, slowest = 0, 0.0
    with make_testbed() as testbed:
        for _ in range(rounds):
            with testbed.service() as service:
                batch = [new_email() for _ in range(AT_ONCE)]
                answered += asyncio.run(_stop_while_busy(service, batch))
                started = time.monotonic()
                code = service.process.wait(END_SECONDS)
                slowest = max(slowest, time.monotonic() - started)
                report.check(holds=code == 0, promise=f"the exit code is 0, not {code}")
                emails += batch
        report.record(rounds=rounds, requests_in_flight=len(emails), answered=answered)
        report.record(slowest_end=slowest)
        report.check(holds=answered == len(emails), promise="requests in flight finish")
        asyncio.run(_stop_workers(report, testbed, emails))
    return report


async def _stop_while_busy(service: Service, emails: list[str]) -> int:
    """Send SIGTERM during registrations; return the number that succeeded."""
    async with httpx.AsyncClient(base_url=service.url, timeout=END_SECONDS) as client:
        bodies = [{"email": email, "password": PASSWORD} for email in emails]
        requests = [
            asyncio.create_task(client.post(f"{API}/auth/register", json=body)) for body in bodies
        ]
        # All requests wait in the hash queue, so after the first response all have arrived.
        await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        service.process.terminate()
        responses = await asyncio.gather(*requests, return_exceptions=True)
    return sum(
        isinstance(response, httpx.Response) and response.is_success for response in responses
    )


async def _stop_workers(report: ScenarioReport, testbed: Testbed, emails: list[str]) -> None:
    """Stop one worker after the other while it sends e-mail; the last one finishes."""
    testbed.sink.reply = lambda _: _slow_reply()
    stopped = 0
    while stopped < ROUNDS and len(testbed.sink.received) < len(emails):
        before = len(testbed.sink.received)
        with suppress(AssertionError), testbed.worker():
            await wait_until(lambda before=before: len(testbed.sink.received) > before)  # type: ignore[misc]
        stopped += 1
    testbed.sink.reply = lambda _: "250 OK"
    with testbed.worker():
        await wait_until(lambda: len(testbed.sink.count_by_message_id()) >= len(emails))
    ids = testbed.sink.count_by_message_id()
    report.record(workers_ended=stopped, mails=len(ids), doubled=sum(ids.values()) - len(ids))
    report.check(holds=len(ids) == len(emails), promise="a stopped worker requeues its jobs")
    report.check(holds=set(ids.values()) == {1}, promise="no mail is sent twice")


def _slow_reply() -> str:
    time.sleep(random.uniform(0, 0.02))  # noqa: S311 - no secret
    return "250 OK"
