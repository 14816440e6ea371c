"""How long a code that is gone may still be shown."""

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
from tests.support.waiting import POLL_SECONDS, WAIT_SECONDS, ThreadTime, measure_thread_time

MAX_SECONDS = 1.0
CACHED_SECONDS = 25.0
"""The promise for a change of which Redis did not hear."""

MAX_LOOKUPS = 2_000


@pytest.fixture
async def two(
    serve: ServiceFactory,
    settings: Settings,
    own_redis: RedisProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Two processes, as far as caches go, over one database and one Redis, which both have so much
    patience with that none takes it for gone because the machine is busy.
    """
    monkeypatch.setattr("referral.adapters.redis.client.REPLY_POLLS", MAX_LOOKUPS)
    monkeypatch.setattr("referral.adapters.redis.client.SOCKET_TIMEOUT_SECONDS", WAIT_SECONDS)
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
    """Return the code that is shown for an address."""
    answer = await client.get(f"{API}/codes/lookup", params={"email": email})
    assert answer.status_code in {200, 404}, answer.text
    return str(answer.json()["code"]) if answer.status_code == 200 else None


async def end_code(member: Member, code: dict[str, str], how: str) -> str | None:
    """Change a member's code; return what a look-up shows from then on."""
    path = f"/me/codes/{code['id']}"
    if how == "replace":
        return str((await member.issue_code(replace=True))["code"])
    if how == "use up":
        joined = await register(member.client, referral_code=code["code"])
        assert joined.status_code == 201
        return None
    if how == "activate another":
        other = await member.issue_code(activate=False)
        await member.request("POST", f"/me/codes/{other['id']}/activate")
        return str(other["code"])
    method, path = ("DELETE", path) if how == "delete" else ("POST", f"{path}/deactivate")
    assert (await member.request(method, path)).is_success
    return None


async def until_shown(
    client: httpx.AsyncClient, email: str, code: str | None, since: ThreadTime, within: float
) -> None:
    """Return when a look-up shows the code; none that began later than so many seconds after the
    change may show another.
    """
    while True:
        asked_at = since.seconds
        if await look_up(client, email) == code:
            return
        assert asked_at < within
        await asyncio.sleep(POLL_SECONDS)


CHANGES = ("delete", "deactivate", "replace", "activate another", "use up")


@pytest.mark.parametrize("how", CHANGES)
async def test_a_change_shows_at_once_here_and_within_a_second_elsewhere(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient], how: str
) -> None:
    """No answer after the change's own has the old code; another process has a second."""
    here, there = two
    member = await join(here)
    code = await member.issue_code(max_uses=1)
    assert await look_up(here, member.email) == await look_up(there, member.email) == code["code"]
    now = await end_code(member, code, how)
    async with measure_thread_time() as since:
        assert await look_up(here, member.email) == now
        await until_shown(there, member.email, now, since, MAX_SECONDS)
    assert await look_up(here, member.email) == now


async def test_a_renewal_shows_the_new_end(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """A code that was renewed is shown with its new expiry."""
    member = await join(two[0])
    code = await member.issue_code()
    await look_up(two[0], member.email)
    body = {"lifetime_minutes": 600}
    renewed = (await member.request("PATCH", f"/me/codes/{code['id']}", json=body)).json()
    found = await two[0].get(f"{API}/codes/lookup", params={"email": member.email})
    assert found.json()["expires_at"] == renewed["expires_at"] != code["expires_at"]


async def test_a_first_code_shows_at_once(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """That there was no code is forgotten when there is one."""
    member = await join(two[0])
    assert await look_up(two[0], member.email) is None
    code = await member.issue_code()
    assert await look_up(two[0], member.email) == code["code"]


async def test_what_redis_missed_is_never_shown_by_the_same_process(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
    own_redis: RedisProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis stands still during the change: this process shows nothing old, others neither when
    what they may remember has ended.
    """
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
        await until_shown(there, member.email, None, since, CACHED_SECONDS)
    assert await look_up(here, member.email) is None
    assert await look_up(there, member.email) is None


async def test_changes_and_look_ups_at_once_never_bring_a_code_back(
    two: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    """Under constant look-ups by two processes, a replaced code is gone where it was replaced."""
    here, there = two
    member = await join(here)
    over = asyncio.Event()

    async def keep_asking(client: httpx.AsyncClient) -> int:
        asked = 0
        while not over.is_set():
            await look_up(client, member.email)
            asked += 1
            await asyncio.sleep(0)  # an answer out of the process leaves nobody else a turn
        return asked

    askers = [asyncio.create_task(keep_asking(client)) for client in (here, there) * 3]
    last = ""
    for _ in range(30):
        last = (await member.issue_code(replace=True))["code"]
        assert await look_up(here, member.email) == last

    async with measure_thread_time() as since:
        await until_shown(there, member.email, last, since, MAX_SECONDS)
    over.set()
    assert min(await asyncio.gather(*askers)) > 0
