"""A workload of concurrent reads and writes that records every response."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg
import httpx

from tests.support.api_client import API, Member, join, new_email, register
from tests.support.waiting import wait_until

SUCCESS = range(200, 300)
WARM_UP_REQUESTS = 200
CLIENT_TIMEOUT = httpx.Timeout(30)


class RequestRecord(NamedTuple):
    """A request: its start, its duration in seconds, and its status, 0 without a response."""

    started_at: float
    seconds: float
    status: int
    kind: str


@dataclass
class Workload:
    """Members with a code each, who replace it, look each other up and register new users."""

    client: httpx.AsyncClient
    members: list[Member]
    registering: float = 0.1
    requests: list[RequestRecord] = field(default_factory=list)
    accounts: dict[str, str] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    async def work(self, member: Member, current: dict[str, Any]) -> None:
        """Send requests as a member with an active code until stopped."""
        self.codes.add(current["id"])
        while not self.stopped:
            choice = random.random()  # noqa: S311 - no secret
            if choice < self.registering:
                email = new_email()
                registration = register(self.client, email, referral_code=current["code"])
                response = await self.record("register", registration)
                if response is not None and response.status_code == 201:
                    self.accounts[email] = response.json()["id"]
            elif choice < self.registering + 0.2:
                body = {"lifetime_minutes": 60, "replace": True}
                response = await self.record(
                    "issue", member.request("POST", "/me/codes", json=body)
                )
                if response is not None and response.status_code == 201:
                    current = response.json()
                    self.codes.add(current["id"])
            else:
                await self.record("read", member.request("GET", "/me"))
                other = random.choice(self.members)  # noqa: S311 - no secret
                await self.record("look up", look_up(self.client, other.email))

    async def record(self, kind: str, request: Awaitable[httpx.Response]) -> httpx.Response | None:
        """Wait for a response and record the request."""
        started = time.monotonic()
        try:
            response = await request
        except httpx.TransportError as error:
            self.requests.append(RequestRecord(started, time.monotonic() - started, 0, kind))
            self.errors[type(error).__name__] += 1
            await asyncio.sleep(0.02)
            return None
        self.requests.append(
            RequestRecord(started, time.monotonic() - started, response.status_code, kind)
        )
        if response.status_code == 503 and not response.headers.get("Retry-After", "").isdigit():
            self.errors["503 without Retry-After"] += 1
        return response

    async def warm_up(self) -> None:
        """Wait for the first responses."""
        await wait_until(lambda: len(self.requests) >= WARM_UP_REQUESTS)

    def between(self, start: float, end: float = float("inf")) -> list[RequestRecord]:
        """Return the requests that started within a period."""
        return [request for request in self.requests if start <= request.started_at < end]

    async def count_lost_writes(self, connection: asyncpg.Connection) -> int:
        """Count the acknowledged accounts and codes that are not stored."""
        emails = {row["email"] for row in await connection.fetch("SELECT email FROM users")}
        codes = {str(row["id"]) for row in await connection.fetch("SELECT id FROM codes")}
        return len(self.accounts.keys() - emails) + len(self.codes - codes)

    @property
    def acknowledged_writes(self) -> int:
        """The number of acknowledged accounts and codes."""
        return len(self.accounts) + len(self.codes)


async def look_up(client: httpx.AsyncClient, email: str) -> httpx.Response:
    """Look the code of an e-mail up."""
    return await client.get(f"{API}/codes/lookup", params={"email": email})


@asynccontextmanager
async def run_workload(
    url: str, size: int = 8, registering: float = 0.1
) -> AsyncIterator[Workload]:
    """Run a workload until the block ends."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=size)
    async with httpx.AsyncClient(base_url=url, timeout=CLIENT_TIMEOUT, limits=limits) as client:
        members = [await join(client) for _ in range(size)]
        workload = Workload(client, members, registering)
        # Every member has a code from the start, so that no look-up is 404.
        codes = [await member.issue_code(replace=True) for member in members]
        tasks = [
            asyncio.create_task(workload.work(member, code))
            for member, code in zip(members, codes, strict=True)
        ]
        try:
            yield workload
        finally:
            workload.stopped = True
            await asyncio.gather(*tasks)


def count_statuses(requests: Iterable[RequestRecord]) -> dict[int, int]:
    """Count responses by status."""
    return dict(sorted(Counter(request.status for request in requests).items()))


def percentile(requests: Iterable[RequestRecord], share: float) -> float:
    """Return the duration in seconds that this share of the requests stayed below."""
    durations = sorted(request.seconds for request in requests)
    return durations[min(int(len(durations) * share), len(durations) - 1)] if durations else 0.0


def longest_outage(requests: Iterable[RequestRecord]) -> float:
    """Return the longest time in seconds without a successful request."""
    ends = sorted(
        request.started_at + request.seconds for request in requests if request.status in SUCCESS
    )
    return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)
