"""`GET /events`: pages, filters and cursors."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.clients import Scope
from referral.core.entities.events import FEED_EVENT_TYPES
from referral.web.controllers.events import LIST_KEY
from referral.web.pagination import make_cursor
from tests.support.api_client import API, Member, join
from tests.support.clients import ClientCaller, create_client

EVENTS = f"{API}/events"


@pytest.fixture
async def poller(client: httpx.AsyncClient, database: PostgresDatabase) -> ClientCaller:
    """A client with the scope `events:read`; the feed is empty."""
    async with database.begin() as repositories:
        await repositories.connection.execute_sql("TRUNCATE event_outbox, events")
    return await create_client(client, database, Scope.EVENTS_READ)


@pytest.fixture
async def ann(poller: ClientCaller) -> Member:
    """A user with a code that was deactivated: three events."""
    ann = await join(poller.client)
    code = (await ann.request("POST", "/me/codes", json={"lifetime_minutes": 5})).json()
    await ann.request("POST", f"/me/codes/{code['id']}/deactivate")
    return ann


async def poll(poller: ClientCaller, **query: Any) -> dict[str, Any]:
    """Return a page."""
    response = await poller.request("GET", EVENTS, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def types(page: dict[str, Any]) -> list[str]:
    """Return the types of the events of a page."""
    return [item["type"] for item in page["items"]]


async def test_feed_lists_changes_at_once(poller: ClientCaller, ann: Member) -> None:
    """Oldest first, without a worker."""
    page = await poll(poller)
    assert types(page) == ["user.registered", "code.created", "code.deactivated"]
    registered, created, _ = page["items"]
    me = (await ann.request("GET", "/me")).json()
    assert registered.keys() == {"id", "type", "timestamp", "data"}
    assert registered["timestamp"] == me["created_at"]
    assert registered["data"]["user_id"] == ann.id
    [code] = (await ann.request("GET", "/me/codes")).json()["items"]
    assert created["data"]["expires_at"] == code["expires_at"]
    assert created["data"]["status"] == "active"
    assert ann.email not in str(page)


async def test_cursor_goes_on_where_the_last_page_ended(poller: ClientCaller, ann: Member) -> None:
    """Now or later; the last page, an empty one and the first one have a cursor too."""
    first = await poll(poller, limit=2)
    rest = await poll(poller, cursor=first["next_cursor"])
    assert (types(first), types(rest)) == (
        ["user.registered", "code.created"],
        ["code.deactivated"],
    )
    empty = await poll(poller, cursor=rest["next_cursor"])
    assert empty == {"items": [], "next_cursor": rest["next_cursor"]}
    await ann.request("POST", "/me/codes", json={"lifetime_minutes": 5})
    assert types(await poll(poller, cursor=empty["next_cursor"])) == ["code.created"]


async def test_empty_feed_has_a_cursor(poller: ClientCaller) -> None:
    """A poller that begins with it misses nothing."""
    page = await poll(poller)
    assert page["items"] == []
    await join(poller.client)
    assert types(await poll(poller, cursor=page["next_cursor"])) == ["user.registered"]


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["code.created"], ["code.created"]),
        (["code.*"], ["code.created", "code.deactivated"]),
        (["user.registered", "code.deactivated"], ["user.registered", "code.deactivated"]),
        (["code.*", "code.created"], ["code.created", "code.deactivated"]),
        (["referral.*"], []),
    ],
)
async def test_feed_is_filtered(poller: ClientCaller, wanted: list[str], found: list[str]) -> None:
    """By types and groups of types; each event is listed once."""
    assert types(await poll(poller, type=wanted)) == found


@pytest.mark.usefixtures("ann")
async def test_cursor_survives_a_change_of_the_filter(poller: ClientCaller) -> None:
    """It is a place in the feed of all events."""
    page = await poll(poller, type="code.created")
    assert types(await poll(poller, cursor=page["next_cursor"])) == ["code.deactivated"]


@pytest.mark.parametrize(
    "wanted", ["", "null", "code", "code.gilded", "**", "Code.*", "webhook.test"]
)
async def test_unknown_type_is_rejected(poller: ClientCaller, wanted: str) -> None:
    """The problem lists the types that exist."""
    response = await poller.request("GET", EVENTS, params={"type": ["code.*", wanted]})
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["parameter"] == "type"
    assert all(each in error["detail"] for each in (*FEED_EVENT_TYPES, "user.*", "referral.*"))


BEYOND_BIGINT = make_cursor(UUID(int=2**63), LIST_KEY)


@pytest.mark.parametrize("garbage", ["", "x", "null", "A" * 32, BEYOND_BIGINT])
async def test_invalid_cursor_is_rejected(poller: ClientCaller, garbage: str) -> None:
    """Also one that was made with the source code at hand."""
    response = await poller.request("GET", EVENTS, params={"cursor": garbage})
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == ["cursor"]


async def test_cursor_of_another_list_is_rejected(poller: ClientCaller, ann: Member) -> None:
    """Each list has cursors of its own."""
    await ann.request("POST", "/me/codes", json={"lifetime_minutes": 5})
    page = (await ann.request("GET", "/me/codes", params={"limit": 1})).json()
    response = await poller.request("GET", EVENTS, params={"cursor": page["next_cursor"]})
    assert response.status_code == 422
