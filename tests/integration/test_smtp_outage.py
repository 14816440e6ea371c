"""An SMTP outage of an hour."""

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta

import asyncpg
import pytest
from msgspec.structs import replace

from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.jobs.executor import MAX_BACKOFF, MAX_FAILURES, backoff
from referral.settings import Settings
from tests.conftest import execute, run_service
from tests.support.api_client import join
from tests.support.service_process import free_port
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_for_value

HOUR = timedelta(hours=1)
MEMBERS = 3

MAKE_DUE_SQL = """
UPDATE pgqueuer SET execute_after = now()
FROM (SELECT id, execute_after - now() AS waited FROM pgqueuer
      WHERE status = 'queued' AND execute_after > now() AND NOT id = ANY($1::bigint[])) AS early
WHERE pgqueuer.id = early.id RETURNING pgqueuer.id, early.waited, pgqueuer.attempts
"""
"""Makes delayed jobs due now, except for the given ids, and returns their remaining delay."""


class RetryTimeline:
    """The total delay and the attempts of each job, with the clock moved for it."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.waited: dict[int, timedelta] = defaultdict(timedelta)
        self.attempts: dict[int, int] = {}

    async def has_passed(self) -> bool:
        """Make the delayed jobs due; tell whether an hour has passed for all."""
        for row in await self.connection.fetch(MAKE_DUE_SQL, self._done()):
            self.waited[row["id"]] += row["waited"]
            self.attempts[row["id"]] = row["attempts"]
        return len(self._done()) == MEMBERS

    def _done(self) -> list[int]:
        return [job for job, waited in self.waited.items() if waited >= HOUR]


async def test_mails_of_an_smtp_outage_are_sent_afterwards(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are retried with growing, random delays, and none is held."""
    monkeypatch.setattr("referral.adapters.jobs.worker.POLL_INTERVAL", timedelta(milliseconds=50))
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    sink, job_admin = SmtpSink(free_port()), JobAdmin(database_url)
    connection = await asyncpg.connect(database_url)
    jobs = RetryTimeline(connection)
    async with run_service(replace(settings, smtp_url=sink.url, worker="inline")) as service:
        members = [await join(service) for _ in range(MEMBERS)]
        await wait_for_value(jobs.has_passed, 60)
        assert await job_admin.list_jobs("held", 9) == []
        sink.start()

        async def are_sent() -> bool:
            # Repeated, as an attempt that ran while the server started may have failed.
            await connection.execute("UPDATE pgqueuer SET execute_after = now()")
            return all(sink.mails_to(member.email) for member in members)

        await wait_for_value(are_sent)
    await connection.close()
    sink.stop()
    assert [len(sink.mails_to(member.email)) for member in members] == [1] * MEMBERS
    assert all(HOUR <= waited < HOUR + MAX_BACKOFF for waited in jobs.waited.values())
    assert all(10 < attempts < MAX_FAILURES / 2 for attempts in jobs.attempts.values())
    assert len(set(jobs.waited.values())) == MEMBERS


@pytest.mark.parametrize("pick", [min, max])
def test_no_jitter_holds_a_mail_within_an_hour(
    pick: Callable[[float, float], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the shortest or the longest delays the attempts of an hour stay within bounds."""
    monkeypatch.setattr("random.uniform", pick)
    waited, attempts = timedelta(), 0
    while waited < HOUR:
        waited += backoff(attempts)
        attempts += 1
    assert 10 < attempts < MAX_FAILURES / 2
    assert waited < HOUR + MAX_BACKOFF
