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

from tests.support.journey import API, Member, join, new_email, register

FINE = range(200, 300)
PATIENCE = httpx.Timeout(30)


class Seen(NamedTuple):
    """One request: when it began, how long it took, and its status, 0 for no answer."""

    at: float
    took: float
    status: int
    what: str


@dataclass
class Crowd:
    """Members with a code each, who make codes, look each other up and bring new accounts in."""

    client: httpx.AsyncClient
    members: list[Member]
    joining: float = 0.1
    seen: list[Seen] = field(default_factory=list)
    accounts: dict[str, str] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    over: bool = False

    async def work(self, member: Member) -> None:
        """Do one thing after another until it is over."""
        current = await member.issue(replace=True)
        self.codes.add(current["id"])
        while not self.over:
            what = random.random()  # noqa: S311 - no secret
            if what < self.joining:
                email = new_email()
                joined = register(self.client, email, referral_code=current["code"])
                answer = await self.note("register", joined)
                if answer is not None and answer.status_code == 201:
                    self.accounts[email] = answer.json()["id"]
            elif what < self.joining + 0.2:
                wanted = {"lifetime_minutes": 60, "replace": True}
                answer = await self.note("issue", member.request("POST", "/me/codes", json=wanted))
                if answer is not None and answer.status_code == 201:
                    current = answer.json()
                    self.codes.add(current["id"])
            else:
                await self.note("read", member.request("GET", "/me"))
                other = random.choice(self.members)  # noqa: S311 - no secret
                await self.note("look up", look_up(self.client, other.email))

    async def note(self, what: str, request: Awaitable[httpx.Response]) -> httpx.Response | None:
        """Wait for an answer, and take down how that went."""
        began = time.monotonic()
        try:
            answer = await request
        except httpx.TransportError as error:
            self.seen.append(Seen(began, time.monotonic() - began, 0, what))
            self.faults[type(error).__name__] += 1
            await asyncio.sleep(0.02)
            return None
        self.seen.append(Seen(began, time.monotonic() - began, answer.status_code, what))
        if answer.status_code == 503 and not answer.headers.get("Retry-After", "").isdigit():
            self.faults["503 without Retry-After"] += 1
        return answer

    def between(self, start: float, end: float = float("inf")) -> list[Seen]:
        """Return the requests that began within a time."""
        return [each for each in self.seen if start <= each.at < end]

    async def missing(self, connection: asyncpg.Connection) -> int:
        """Count the accounts and codes that were acknowledged and are not there."""
        emails = {row["email"] for row in await connection.fetch("SELECT email FROM users")}
        codes = {str(row["id"]) for row in await connection.fetch("SELECT id FROM codes")}
        return len(self.accounts.keys() - emails) + len(self.codes - codes)

    @property
    def acknowledged(self) -> int:
        """How many writes were."""
        return len(self.accounts) + len(self.codes)


async def look_up(client: httpx.AsyncClient, email: str) -> httpx.Response:
    """Ask for the code of an address."""
    return await client.get(f"{API}/codes/lookup", params={"email": email})


@asynccontextmanager
async def crowd(url: str, size: int = 8, joining: float = 0.1) -> AsyncIterator[Crowd]:
    """Have a crowd at work until the block ends."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=size)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        members = [await join(client) for _ in range(size)]
        people = Crowd(client, members, joining)
        work = [asyncio.create_task(people.work(member)) for member in members]
        try:
            yield people
        finally:
            people.over = True
            await asyncio.gather(*work)


def statuses(seen: Iterable[Seen]) -> dict[int, int]:
    """Count answers by status."""
    return dict(sorted(Counter(each.status for each in seen).items()))


def percentile(seen: Iterable[Seen], share: float) -> float:
    """Return the wait that this share of the requests stayed under, in seconds."""
    took = sorted(each.took for each in seen)
    return took[min(int(len(took) * share), len(took) - 1)] if took else 0.0


def outage(seen: Iterable[Seen]) -> float:
    """Return the longest time in which no request succeeded, in seconds."""
    ends = sorted(each.at + each.took for each in seen if each.status in FINE)
    return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)
