"""A status is told for the instant at which it was found."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from msgspec.structs import replace

from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, join
from tests.support.fakes.ports import FakeClock


class AdvancingClock(FakeClock):
    """A clock on which some time passes whenever it is read."""

    step = timedelta()

    def now(self) -> datetime:
        """See the port."""
        found = super().now()
        self._now += self.step
        return found


@pytest.fixture
def clock() -> AdvancingClock:
    """The clock of the services in this module."""
    return AdvancingClock()


@pytest.fixture
async def client(serve: ServiceFactory, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose access token does not expire while the clock passes."""
    async with serve(replace(settings, access_token_minutes=60)) as client:
        yield client


async def test_a_code_is_active_in_the_answer_that_finds_makes_or_renews_it(
    client: httpx.AsyncClient, clock: AdvancingClock
) -> None:
    """Though it expires before the answer is written; a repeated request gets the same answer."""
    ann = await join(client)
    code = await ann.issue_code(lifetime_minutes=1)
    one = f"/me/codes/{code['id']}"
    minute, few_minutes = {"lifetime_minutes": 1}, {"lifetime_minutes": 3}
    clock.advance(seconds=-61)  # what checking the access token takes of the code's minute
    clock.step = timedelta(seconds=61)
    found = [await ann.request("GET", "/me/codes/active")]
    found.append(await ann.request("PATCH", one, json=minute))
    found.append(await ann.request("PATCH", one, json=few_minutes))
    found.append(await ann.request("POST", f"{one}/activate"))
    headers = ann.headers | {"Idempotency-Key": str(uuid4())}
    for _ in range(2):
        made = await client.post(f"{API}/me/codes", json=minute, headers=headers)
        assert made.status_code == 201
        found.append(made)
    assert [answer.json()["status"] for answer in found] == ["active"] * len(found)
    assert found[-1].content == found[-2].content
