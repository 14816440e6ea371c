"""kill -9 of the API while requests are around their commits (rows 23 and 25)."""

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
"""The kill comes within so many seconds of the first answer; the others are on their way."""

REGISTRATIONS, CODES = 3, 5
"""Requests at once, most of which are not answered when the kill comes."""


@dataclass
class Write:
    """A request with a key, and the answers to it."""

    path: str
    body: Mapping[str, object]
    member: Member | None = None
    key: str = field(default_factory=lambda: str(uuid4()))
    answers: list[httpx.Response] = field(default_factory=list)

    @property
    def digest(self) -> bytes:
        """What its key is stored as."""
        caller = self.member.id if self.member else "nobody"
        return sha256(f"{caller}\n{self.key}".encode()).digest()

    async def send(self, client: httpx.AsyncClient) -> None:
        """Ask, and take the answer down if there is one."""
        headers = {"Idempotency-Key": self.key} | (self.member.headers if self.member else {})
        with suppress(httpx.TransportError):
            self.answers.append(
                await client.post(f"{API}{self.path}", json=self.body, headers=headers)
            )


@dataclass
class Campaign:
    """An API that is killed again and again."""

    place: Testbed
    environment: dict[str, str]
    port: int = 0
    process: BaseProcess | None = None
    next: asyncio.Task[tuple[BaseProcess, int]] | None = None
    writes: list[Write] = field(default_factory=list)
    unanswered: int = 0
    committed: int = 0

    async def run(self, kills: int) -> None:
        """Kill so often; each time, the next process gets the same requests again."""
        await self._replace()
        async with self.client() as client:
            owner = await join(client)
            code = (await owner.issue_code())["code"]
        for _ in range(kills):
            writes = await self._round(owner, code)
            await self._look(write for write in writes if not write.answers)
            await self._replace()
            async with self.client() as client:
                await asyncio.gather(*(write.send(client) for write in writes))
            self.writes += writes

    async def _look(self, unanswered: Iterable[Write]) -> None:
        """Count on which side of the commit the kill came."""
        keys = [write.digest for write in unanswered]
        self.unanswered += len(keys)
        async with self.place.connection() as connection:
            query = "SELECT count(*) FROM attempts WHERE key = ANY($1)"
            self.committed += await connection.fetchval(query, keys)

    async def _replace(self) -> None:
        """Go on with the process that was started meanwhile, and start the one after it."""
        self.next = self.next or asyncio.create_task(self._start())
        self.process, self.port = await self.next
        self.next = asyncio.create_task(self._start())

    async def _start(self) -> tuple[BaseProcess, int]:
        port = free_port()
        return await start(self.environment, port), port

    async def close(self) -> None:
        """End what runs."""
        assert self.process is not None
        assert self.next is not None
        for process in (self.process, (await self.next)[0]):
            process.kill()

    def client(self) -> httpx.AsyncClient:
        """Return a client of the API."""
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    async def _round(self, owner: Member, code: str) -> list[Write]:
        """Send some writes, and return while they are between their begin and their answer."""
        make = {"lifetime_minutes": 60, "activate": False}
        joining = {"password": PASSWORD, "referral_code": code}
        writes = [Write("/me/codes", make, owner) for _ in range(CODES)] + [
            Write("/auth/register", joining | {"email": new_email()}) for _ in range(REGISTRATIONS)
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
    """Kill, retry, and compare what was told with what is there."""
    with make_testbed() as place:
        return asyncio.run(campaign(place, kills))


async def campaign(place: Testbed, kills: int) -> ScenarioReport:
    """Run it over the servers of a place."""
    figures = ScenarioReport()
    ours = Campaign(place, environment(place.folder / "api", **place.settings()))
    try:
        await ours.run(kills)
        async with ours.client() as client:
            logins = await _can_log_in(client, ours.writes)
    finally:
        await ours.close()
    figures.check(holds=logins, promise="whoever was told to have an account can log in")
    await _judge(figures, ours, kills)
    return figures


async def _can_log_in(client: httpx.AsyncClient, writes: list[Write]) -> bool:
    emails = [str(write.body["email"]) for write in writes if "email" in write.body]
    answers = [await log_in(client, email) for email in random.sample(emails, min(20, len(emails)))]
    return all(answer.status_code == 200 for answer in answers)


async def _judge(figures: ScenarioReport, ours: Campaign, kills: int) -> None:
    answered = [write for write in ours.writes if write.answers]
    ids = [write.answers[0].json().get("id") for write in answered]
    async with ours.place.connection() as connection:
        users = Counter(row["email"] for row in await connection.fetch("SELECT email FROM users"))
        found = {str(row["id"]) for row in await connection.fetch("SELECT id FROM users")}
        codes = {str(row["id"]) for row in await connection.fetch("SELECT id FROM codes")}
        uses = await connection.fetchval("SELECT sum(uses) FROM codes")
        referrals = await connection.fetchval("SELECT count(*) FROM referrals")
        queue = await connection.fetch("SELECT entrypoint, payload FROM pgqueuer")
    greeted = Counter(
        json.loads(row["payload"])["user_id"]
        for row in queue
        if row["entrypoint"] == "welcome-mail"
    )
    wanted = Counter(str(write.body["email"]) for write in ours.writes if "email" in write.body)
    lost = sum(each not in found | codes for each in ids)
    figures.record(
        kills=kills,
        writes_sent=len(ours.writes),
        unanswered_at_the_kill=ours.unanswered,
        committed_all_the_same=ours.committed,
        acknowledged=len(answered),
        found=len(answered) - lost,
        lost=lost,
        accounts=len(users),
        mail_jobs=sum(greeted.values()),
    )
    figures.check(holds=lost == 0, promise="every acknowledged write is there")
    figures.check(
        holds=all(answer.status_code == 201 for write in answered for answer in write.answers)
        and len(answered) == len(ours.writes),
        promise="every retry with its key completes",
    )
    figures.check(
        holds=all(len({answer.content for answer in write.answers}) == 1 for write in answered),
        promise="a retry gets the first answer",
    )
    figures.check(
        holds=greeted == Counter(dict.fromkeys(found, 1)),
        promise="an account has one mail job, and a mail job an account",
    )
    figures.check(
        holds=uses == referrals == len(wanted), promise="uses, referrals and accounts are as many"
    )
    figures.check(
        holds=len(codes) == sum("email" not in write.body for write in ours.writes) + 1
        and all(users[email] == 1 for email in wanted),
        promise="no write is done twice",
    )
