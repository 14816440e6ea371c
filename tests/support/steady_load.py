"""A continuous load of reads and writes, with a count of the responses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.support.api_client import API, PASSWORD, Member, join

CLIENT_COUNT = 8


@dataclass
class ResponseCounts:
    """Counts of responses by request and status; status 0 is a connection error."""

    responses: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def failures(self) -> dict[tuple[str, int], int]:
        """The counts of unsuccessful responses."""
        return {one: count for one, count in self.responses.items() if not 200 <= one[1] < 300}


@asynccontextmanager
async def steady_load(url: str, clients: int = CLIENT_COUNT) -> AsyncIterator[ResponseCounts]:
    """Send requests until the block ends; each client has its own account."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=30) as client,
        steady_load_through(client, clients) as tally,
    ):
        yield tally


@asynccontextmanager
async def steady_load_through(
    client: httpx.AsyncClient, clients: int = CLIENT_COUNT
) -> AsyncIterator[ResponseCounts]:
    """Send requests through an existing client until the block ends."""
    tally, stopping = ResponseCounts(), asyncio.Event()

    async def send_requests() -> None:
        member = await join(client)
        while not stopping.is_set():
            await _send_each_request(member, tally)

    tasks = [asyncio.create_task(send_requests()) for _ in range(clients)]
    try:
        yield tally
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def _send_each_request(member: Member, tally: ResponseCounts) -> None:
    form = {"grant_type": "password", "username": member.email, "password": PASSWORD}
    code = {"lifetime_minutes": 60, "activate": False}
    for name, method, path, options in (
        ("me", "GET", "/me", {}),
        ("code", "POST", "/me/codes", {"json": code}),
        ("unsubscribe", "PATCH", "/me", {"json": {"notify_on_referral": True}}),
        ("codes", "GET", "/me/codes", {}),
        ("look-up", "GET", f"/codes/NONE-{member.id[:8]}/validity", {}),
        ("token", "POST", "/auth/token", {"data": form}),
    ):
        headers = member.headers if name != "token" else {}
        try:
            response = await member.client.request(
                method,
                f"{API}{path}",
                headers=headers,
                **options,
            )
        except httpx.TransportError:
            tally.responses[name, 0] += 1
        else:
            tally.responses[name, response.status_code] += 1
