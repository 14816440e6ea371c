"""The time for which a look-up may show a code after its end."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import msgspec
import pytest

from referral.adapters.redis.client import REPLY_POLLS
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, Member, join, register
from tests.support.server_processes import RedisProcess
from tests.support.waiting import WAIT_SECONDS, ThreadTime, measure_thread_time, wait_for_value

MAX_SECONDS = 1.0
CACHED_SECONDS = 25.0
"""Maximum age of a cached look-up if its invalidation did not reach Redis."""

MAX_LOOKUPS = 2_000


@pytest.fixture
async def two(
    serve: ServiceFactory,
    settings: Settings,
    own_redis: RedisProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of two services with own caches, one database, one Redis and long timeouts."""
    monkeypatch.setattr("referral.adapters.redis.client.REPLY_POLLS", MAX_LOOKUPS)
    monkeypatch.setattr("referral.adapters.redis.topology.SOCKET_TIMEOUT_SECONDS", WAIT_SECONDS)
    shared = msgspec.structs.replace(
        settings,
        redis_url=own_redis.url,
        limit_lookup=Rate.parse("off"),
        limit_register=Rate.parse("off"),
    )
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serve(shared))
        yield one, await stack.enter_async_context(serve(shared))


async def look_up(client: httpx.AsyncClient, email: str) -> str | None:
    """Return the code that a look-up shows, or None."""
    response = await client.get(f"{API}/codes/lookup", params={"email": email})
    assert response.status_code in {200, 404}, response.text
    return str(response.json()["code"]) if response.status_code == 200 else None


async def change_code(member: Member, code: dict[str, str], kind: str) -> str | None:
    """Change a member's code; return the code that a look-up must show now."""
    path = f"/me/codes/{code['id']}"
    if kind == "replace":
        return str((await member.issue_code(replace=True))["code"])
    if kind == "use up":
        registered = await register(member.client, referral_code=code["code"])
        assert registered.status_code == 201
        return None
    if kind == "activate another":
        other = await member.issue_code(activate=False)
        await member.request("POST", f"/me/codes/{other['id']}/activate")
        return str(other["code"])
    method, path = ("DELETE", path) if kind == "delete" else ("POST", f"{path}/deactivate")
    assert (await member.request(method, path)).is_success
    return None


async def wait_until_shown(
    client: httpx.AsyncClient, email: str, code: str | None, since: ThreadTime, within: float
) -> None:
    """Wait until a look-up shows the code; look-ups after the limit must not show another."""

    async def is_shown() -> bool:
        started_at = since.seconds
        shown = await look_up(client, email)
        assert shown == code or started_at < within
        return shown == code

    await wait_for_value(is_shown)


CHANGES = ("delete", "deactivate", "replace", "activate another", "use up")


@pytest.mark.parametrize("kind", CHANGES)
async def test_change_is_visible_at_once_and_elsewhere_within_a_second(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient], kind: str
) -> None:
    """The same process shows the change at once, another process within a second."""
    here, there = two
    member = await join(here)
    code = await member.issue_code(max_uses=1)
    assert await look_up(here, member.email) == await look_up(there, member.email) == code["code"]
    expected = await change_code(member, code, kind)
    async with measure_thread_time() as since:
        assert await look_up(here, member.email) == expected
        await wait_until_shown(there, member.email, expected, since, MAX_SECONDS)
    assert await look_up(here, member.email) == expected


async def test_renewal_is_visible_at_once(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """A look-up shows the new expiry."""
    member = await join(two[0])
    code = await member.issue_code()
    await look_up(two[0], member.email)
    body = {"lifetime_minutes": 600}
    renewed = (await member.request("PATCH", f"/me/codes/{code['id']}", json=body)).json()
    found = await two[0].get(f"{API}/codes/lookup", params={"email": member.email})
    assert found.json()["expires_at"] == renewed["expires_at"] != code["expires_at"]


async def test_first_code_is_visible_at_once(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """A cached empty result is invalidated by the first code."""
    member = await join(two[0])
    assert await look_up(two[0], member.email) is None
    code = await member.issue_code()
    assert await look_up(two[0], member.email) == code["code"]


async def test_missed_invalidation_is_bounded(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
    own_redis: RedisProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis hangs during the change: another process shows the code until its cache expires."""
    here, there = two
    member = await join(here)
    code = await member.issue_code()
    assert await look_up(here, member.email) == await look_up(there, member.email) == code["code"]
    monkeypatch.setattr("referral.adapters.redis.client.REPLY_POLLS", REPLY_POLLS)
    own_redis.send_signal(signal.SIGSTOP)
    await member.request("DELETE", f"/me/codes/{code['id']}")
    async with measure_thread_time() as since:
        assert await look_up(here, member.email) is None
        own_redis.send_signal(signal.SIGCONT)
        assert await look_up(here, member.email) is None
        await wait_until_shown(there, member.email, None, since, CACHED_SECONDS)
    assert await look_up(here, member.email) is None
    assert await look_up(there, member.email) is None


async def test_concurrent_lookups_never_restore_a_replaced_code(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """Under constant look-ups the process that replaced a code never shows the old one."""
    here, there = two
    member = await join(here)
    stopped = asyncio.Event()

    async def keep_looking_up(client: httpx.AsyncClient) -> int:
        count = 0
        while not stopped.is_set():
            await look_up(client, member.email)
            count += 1
            await asyncio.sleep(0)  # a cached response does not yield to other tasks
        return count

    tasks = [asyncio.create_task(keep_looking_up(client)) for client in (here, there) * 3]
    last = ""
    for _ in range(30):
        last = (await member.issue_code(replace=True))["code"]
        assert await look_up(here, member.email) == last

    async with measure_thread_time() as since:
        await wait_until_shown(there, member.email, last, since, MAX_SECONDS)
    stopped.set()
    assert min(await asyncio.gather(*tasks)) > 0
