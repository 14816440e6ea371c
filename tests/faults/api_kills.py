"""kill -9 of the API while requests commit (rows 23 and 25)."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.process import BaseProcess
from uuid import uuid4

import httpx

from tests.faults.forked_api import start
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.support.api_client import API, PASSWORD, Member, join, log_in, new_email
from tests.support.service_process import environment, free_port

KILLS = 500
KILL_WINDOW_SECONDS = 0.006
"""Maximum delay of the kill after the first response, while others are in flight."""

REGISTRATIONS, CODES = 3, 5
"""Concurrent requests; most have no response when the process is killed."""


EXPECTED_EVENTS = """
SELECT 'user.registered' AS type, id::text AS subject FROM users
UNION ALL SELECT 'code.created', id::text FROM codes
UNION ALL SELECT unnest(ARRAY['referral.created', 'referral.confirmed']), id::text FROM referrals
"""
EVENTS = """
SELECT type, coalesce(data ->> 'referral_id', data ->> 'code_id', data ->> 'user_id') AS subject
FROM (SELECT type, data FROM events UNION ALL SELECT type, data FROM event_outbox) AS every
"""


@dataclass
class Write:
    """A request with an idempotency key, and the responses to it."""

    path: str
    body: Mapping[str, object]
    member: Member | None = None
    key: str = field(default_factory=lambda: str(uuid4()))
    responses: list[httpx.Response] = field(default_factory=list)

    @property
    def digest(self) -> bytes:
        """The stored form of its key."""
        caller = self.member.id if self.member else "nobody"
        return sha256(f"{caller}\n{self.key}".encode()).digest()

    async def send(self, client: httpx.AsyncClient) -> None:
        """Send the request; keep the response if there is one."""
        headers = {"Idempotency-Key": self.key} | (self.member.headers if self.member else {})
        with suppress(httpx.TransportError):
            self.responses.append(
                await client.post(f"{API}{self.path}", json=self.body, headers=headers)
            )


@dataclass
class Campaign:
    """An API that is killed again and again."""

    testbed: Testbed
    environment: dict[str, str]
    port: int = 0
    process: BaseProcess | None = None
    next: asyncio.Task[tuple[BaseProcess, int]] | None = None
    writes: list[Write] = field(default_factory=list)
    unanswered: int = 0
    committed: int = 0

    async def run(self, kills: int) -> None:
        """Kill the API so many times; the next process gets the same requests again."""
        await self._replace()
        async with self.client() as client:
            owner = await join(client)
            code = (await owner.issue_code())["code"]
        for _ in range(kills):
            writes = await self._round(owner, code)
            await self._count_unanswered(write for write in writes if not write.responses)
            await self._replace()
            async with self.client() as client:
                await asyncio.gather(*(write.send(client) for write in writes))
            self.writes += writes

    async def _count_unanswered(self, unanswered: Iterable[Write]) -> None:
        """Count the requests without a response, and those of them that were committed."""
        keys = [write.digest for write in unanswered]
        self.unanswered += len(keys)
        async with self.testbed.connection() as connection:
            query = "SELECT count(*) FROM attempts WHERE key = ANY($1)"
            self.committed += await connection.fetchval(query, keys)

    async def _replace(self) -> None:
        """Switch to the next process, and start the one after it."""
        self.next = self.next or asyncio.create_task(self._start())
        self.process, self.port = await self.next
        self.next = asyncio.create_task(self._start())

    async def _start(self) -> tuple[BaseProcess, int]:
        port = free_port()
        return await start(self.environment, port), port

    async def close(self) -> None:
        """Kill the running processes."""
        assert self.process is not None
        assert self.next is not None
        for process in (self.process, (await self.next)[0]):
            process.kill()

    def client(self) -> httpx.AsyncClient:
        """Return a client of the current process."""
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    async def _round(self, owner: Member, code: str) -> list[Write]:
        """Send writes and kill the process before all have a response."""
        new_code = {"lifetime_minutes": 60, "activate": False}
        registration = {"password": PASSWORD, "referral_code": code}
        writes = [Write("/me/codes", new_code, owner) for _ in range(CODES)] + [
            Write("/auth/register", registration | {"email": new_email()})
            for _ in range(REGISTRATIONS)
        ]
        random.shuffle(writes)
        async with self.client() as client:
            sending = [asyncio.create_task(write.send(client)) for write in writes]
            await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(random.uniform(0, KILL_WINDOW_SECONDS) * random.choice((1, 1, 8)))  # noqa: S311
            assert self.process is not None
            self.process.kill()
            await asyncio.gather(*sending)
        return writes


def run(kills: int = KILLS) -> ScenarioReport:
    """Kill, retry, and compare the responses with the database."""
    with make_testbed() as testbed:
        return asyncio.run(run_campaign(testbed, kills))


async def run_campaign(testbed: Testbed, kills: int) -> ScenarioReport:
    """Run the scenario on a testbed."""
    report = ScenarioReport()
    campaign = Campaign(testbed, environment(testbed.folder / "api", **testbed.settings()))
    try:
        await campaign.run(kills)
        async with campaign.client() as client:
            logins = await _can_log_in(client, campaign.writes)
    finally:
        await campaign.close()
    report.check(holds=logins, promise="every acknowledged account can log in")
    await _judge(report, campaign, kills)
    return report


async def _can_log_in(client: httpx.AsyncClient, writes: list[Write]) -> bool:
    emails = [str(write.body["email"]) for write in writes if "email" in write.body]
    responses = [
        await log_in(client, email) for email in random.sample(emails, min(20, len(emails)))
    ]
    return all(response.status_code == 200 for response in responses)


async def _judge(report: ScenarioReport, campaign: Campaign, kills: int) -> None:
    acknowledged = [write for write in campaign.writes if write.responses]
    ids = [write.responses[0].json().get("id") for write in acknowledged]
    async with campaign.testbed.connection() as connection:
        users = Counter(row["email"] for row in await connection.fetch("SELECT email FROM users"))
        user_ids = {str(row["id"]) for row in await connection.fetch("SELECT id FROM users")}
        code_ids = {str(row["id"]) for row in await connection.fetch("SELECT id FROM codes")}
        uses = await connection.fetchval("SELECT sum(uses) FROM codes")
        referrals = await connection.fetchval("SELECT count(*) FROM referrals")
        queue = await connection.fetch("SELECT entrypoint, payload FROM pgqueuer")
        expected_events = Counter(await connection.fetch(EXPECTED_EVENTS))
        events = Counter(await connection.fetch(EVENTS))
    mail_jobs_by_user = Counter(
        json.loads(row["payload"])["user_id"]
        for row in queue
        if row["entrypoint"] == "welcome-mail"
    )
    expected = Counter(
        str(write.body["email"]) for write in campaign.writes if "email" in write.body
    )
    lost = sum(id_ not in user_ids | code_ids for id_ in ids)
    report.record(
        kills=kills,
        writes_sent=len(campaign.writes),
        unanswered_at_the_kill=campaign.unanswered,
        committed_all_the_same=campaign.committed,
        acknowledged=len(acknowledged),
        found=len(acknowledged) - lost,
        lost=lost,
        accounts=len(users),
        mail_jobs=sum(mail_jobs_by_user.values()),
        events=events.total(),
    )
    report.check(holds=lost == 0, promise="every acknowledged write is stored")
    report.check(
        holds=all(
            response.status_code == 201 for write in acknowledged for response in write.responses
        )
        and len(acknowledged) == len(campaign.writes),
        promise="every retry with its key completes",
    )
    report.check(
        holds=all(
            len({response.content for response in write.responses}) == 1 for write in acknowledged
        ),
        promise="a retry gets the first response",
    )
    report.check(
        holds=mail_jobs_by_user == Counter(dict.fromkeys(user_ids, 1)),
        promise="every account has one mail job, and every mail job an account",
    )
    report.check(
        holds=events == expected_events,
        promise="every change has its events once, and no event is without its change",
    )
    report.check(
        holds=uses == referrals == len(expected),
        promise="uses, referrals and accounts are equal in number",
    )
    report.check(
        holds=len(code_ids) == sum("email" not in write.body for write in campaign.writes) + 1
        and all(users[email] == 1 for email in expected),
        promise="no write has two effects",
    )
