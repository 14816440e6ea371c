"""The status of a code in a response is the status at the time when it was read."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from msgspec.structs import replace

from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, join
from tests.support.fakes.system import FakeClock


class AdvancingClock(FakeClock):
    """A clock that advances by `step` at each read."""

    step = timedelta()

    def now(self) -> datetime:
        now = super().now()
        self._now += self.step
        return now


@pytest.fixture
def clock() -> AdvancingClock:
    """The clock of this module's services."""
    return AdvancingClock()


@pytest.fixture
async def client(serve: ServiceFactory, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client with an access token that outlives the steps of the clock."""
    async with serve(replace(settings, access_token_minutes=60)) as client:
        yield client


async def test_code_is_active_in_the_response_that_returns_it(
    client: httpx.AsyncClient, clock: AdvancingClock
) -> None:
    """The code may expire before the response is written; a retry gets the same bytes."""
    ann = await join(client)
    code = await ann.issue_code(lifetime_minutes=1)
    path = f"/me/codes/{code['id']}"
    minute, few_minutes = {"lifetime_minutes": 1}, {"lifetime_minutes": 3}
    clock.advance(seconds=-61)  # authentication reads the clock first
    clock.step = timedelta(seconds=61)
    responses = [await ann.request("GET", "/me/codes/active")]
    responses.append(await ann.request("PATCH", path, json=minute))
    responses.append(await ann.request("PATCH", path, json=few_minutes))
    responses.append(await ann.request("POST", f"{path}/activate"))
    headers = ann.headers | {"Idempotency-Key": str(uuid4())}
    for _ in range(2):
        made = await client.post(f"{API}/me/codes", json=minute, headers=headers)
        assert made.status_code == 201
        responses.append(made)
    assert [response.json()["status"] for response in responses] == ["active"] * len(responses)
    assert responses[-1].content == responses[-2].content
