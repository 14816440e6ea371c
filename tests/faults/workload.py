"""Clients that read and write all the time, and remember what they were told."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg
import httpx

from tests.support.api_client import API, Member, join, new_email, register

SUCCESS = range(200, 300)
CLIENT_TIMEOUT = httpx.Timeout(30)


class RequestRecord(NamedTuple):
    """One request: when it began, how long it took, and its status, 0 for no answer."""

    started_at: float
    seconds: float
    status: int
    kind: str


@dataclass
class Workload:
    """Members with a code each, who make codes, look each other up and bring new accounts in."""

    client: httpx.AsyncClient
    members: list[Member]
    registering: float = 0.1
    requests: list[RequestRecord] = field(default_factory=list)
    accounts: dict[str, str] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    async def work(self, member: Member) -> None:
        """Do one thing after another until it is over."""
        current = await member.issue_code(replace=True)
        self.codes.add(current["id"])
        while not self.stopped:
            what = random.random()  # noqa: S311 - no secret
            if what < self.registering:
                email = new_email()
                joined = register(self.client, email, referral_code=current["code"])
                answer = await self.record("register", joined)
                if answer is not None and answer.status_code == 201:
                    self.accounts[email] = answer.json()["id"]
            elif what < self.registering + 0.2:
                wanted = {"lifetime_minutes": 60, "replace": True}
                answer = await self.record(
                    "issue", member.request("POST", "/me/codes", json=wanted)
                )
                if answer is not None and answer.status_code == 201:
                    current = answer.json()
                    self.codes.add(current["id"])
            else:
                await self.record("read", member.request("GET", "/me"))
                other = random.choice(self.members)  # noqa: S311 - no secret
                await self.record("look up", look_up(self.client, other.email))

    async def record(self, what: str, request: Awaitable[httpx.Response]) -> httpx.Response | None:
        """Wait for an answer, and take down how that went."""
        began = time.monotonic()
        try:
            answer = await request
        except httpx.TransportError as error:
            self.requests.append(RequestRecord(began, time.monotonic() - began, 0, what))
            self.errors[type(error).__name__] += 1
            await asyncio.sleep(0.02)
            return None
        self.requests.append(
            RequestRecord(began, time.monotonic() - began, answer.status_code, what)
        )
        if answer.status_code == 503 and not answer.headers.get("Retry-After", "").isdigit():
            self.errors["503 without Retry-After"] += 1
        return answer

    def between(self, start: float, end: float = float("inf")) -> list[RequestRecord]:
        """Return the requests that began within a time."""
        return [each for each in self.requests if start <= each.started_at < end]

    async def find_lost_writes(self, connection: asyncpg.Connection) -> int:
        """Count the accounts and codes that were acknowledged and are not there."""
        emails = {row["email"] for row in await connection.fetch("SELECT email FROM users")}
        codes = {str(row["id"]) for row in await connection.fetch("SELECT id FROM codes")}
        return len(self.accounts.keys() - emails) + len(self.codes - codes)

    @property
    def count_acknowledged(self) -> int:
        """How many writes were."""
        return len(self.accounts) + len(self.codes)


async def look_up(client: httpx.AsyncClient, email: str) -> httpx.Response:
    """Ask for the code of an address."""
    return await client.get(f"{API}/codes/lookup", params={"email": email})


@asynccontextmanager
async def run_workload(url: str, size: int = 8, joining: float = 0.1) -> AsyncIterator[Workload]:
    """Have a crowd at work until the block ends."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=size)
    async with httpx.AsyncClient(base_url=url, timeout=CLIENT_TIMEOUT, limits=limits) as client:
        members = [await join(client) for _ in range(size)]
        people = Workload(client, members, joining)
        work = [asyncio.create_task(people.work(member)) for member in members]
        try:
            yield people
        finally:
            people.stopped = True
            await asyncio.gather(*work)


def count_statuses(seen: Iterable[RequestRecord]) -> dict[int, int]:
    """Count answers by status."""
    return dict(sorted(Counter(each.status for each in seen).items()))


def percentile(seen: Iterable[RequestRecord], share: float) -> float:
    """Return the wait that this share of the requests stayed under, in seconds."""
    took = sorted(each.seconds for each in seen)
    return took[min(int(len(took) * share), len(took) - 1)] if took else 0.0


def longest_outage(seen: Iterable[RequestRecord]) -> float:
    """Return the longest time in which no request succeeded, in seconds."""
    ends = sorted(each.started_at + each.seconds for each in seen if each.status in SUCCESS)
    return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)
