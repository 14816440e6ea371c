"""A status is told for the instant at which it was found."""

from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from tests.fakes import FakeClock
from tests.journey import API, join


class PassingClock(FakeClock):
    """A clock on which some time passes whenever it is read."""

    step = timedelta()

    def now(self) -> datetime:
        """See the port."""
        found = super().now()
        self._now += self.step
        return found


@pytest.fixture
def clock() -> PassingClock:
    """The clock of the services in this module."""
    return PassingClock()


async def test_a_code_is_active_in_the_answer_that_finds_makes_or_renews_it(
    client: httpx.AsyncClient, clock: PassingClock
) -> None:
    """Though it expires before the answer is written; a repeated request gets the same answer."""
    ann = await join(client)
    code = await ann.issue(lifetime_minutes=60)
    one = f"/me/codes/{code['id']}"
    clock.step = timedelta(minutes=61)
    hour = {"lifetime_minutes": 60}
    found = [await ann.request("GET", "/me/codes/active")]
    found.append(await ann.request("PATCH", one, json=hour))
    found.append(await ann.request("PATCH", one, json={"lifetime_minutes": 62}))
    found.append(await ann.request("POST", f"{one}/activate"))
    headers = ann.headers | {"Idempotency-Key": str(uuid4())}
    for _ in range(2):
        made = await client.post(f"{API}/me/codes", json=hour, headers=headers)
        assert made.status_code == 201
        found.append(made)
    assert [answer.json()["status"] for answer in found] == ["active"] * len(found)
    assert found[-1].content == found[-2].content
