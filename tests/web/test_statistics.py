"""Statistics over HTTP: figures, pictures, ranges, and the list of referrers."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.statistics import MAX_INTERVALS
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, Member, join, register
from tests.support.fakes.system import FakeClock
from tests.web.test_authorization import promote

DAY = timedelta(days=1)
SVG = "{http://www.w3.org/2000/svg}"
EMPTY = {"registered": 0, "referred": 0, "confirmed": 0, "rejected": 0, "codes": 0}


@pytest.fixture
async def admin(client: httpx.AsyncClient, database: PostgresDatabase) -> Member:
    """An admin."""
    admin = await join(client)
    await promote(admin, database)
    return admin


async def get(member: Member, path: str, **params: Any) -> Any:
    """Return the items of a response."""
    response = await member.request("GET", path, params=params)
    assert response.status_code == 200, response.text
    return response.json()["items"]


async def test_statistics_count_what_happened(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase, clock: FakeClock
) -> None:
    """Registrations, referrals, decisions and codes, by day, with zeros where nothing happened."""
    start = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + 40 * DAY
    clock.advance(seconds=(start - clock.now()).total_seconds())
    async with serve(settings) as client:
        await check_statistics(client, database, clock)


async def check_statistics(
    client: httpx.AsyncClient, database: PostgresDatabase, clock: FakeClock
) -> None:
    """Register four users, one of them with two referrals, and reject one two days later."""
    start, admin = clock.now(), await join(client)
    await promote(admin, database)
    owner = await join(client)
    code = await owner.issue_code()
    for _ in range(2):
        assert (await register(client, referral_code=code["code"])).status_code == 201
    listed = await get(admin, "/referrals", referrer_id=owner.id)
    clock.advance(minutes=2 * 24 * 60)
    admin = await admin.log_in_again()
    path = f"/referrals/{listed[0]['referral_id']}/reject"
    rejected = await admin.request("POST", path, json={"reason": "Spam."})
    assert rejected.status_code == 200
    period: dict[str, Any] = {"from": (start - DAY).date(), "to": (start + 3 * DAY).isoformat()}
    days = [(start + number * DAY).isoformat().replace("+00:00", "Z") for number in range(-1, 3)]
    assert await get(admin, "/statistics", interval="day", **period) == [
        {"start": days[0]} | EMPTY,
        {
            "start": days[1],
            "registered": 4,
            "referred": 2,
            "confirmed": 2,
            "rejected": 0,
            "codes": 1,
        },
        {"start": days[2]} | EMPTY,
        {"start": days[3]} | EMPTY | {"rejected": 1},
    ]
    own = [{"start": day, "joined": 0, "confirmed": 0} for day in days]
    own[1] |= {"joined": 2, "confirmed": 2}
    assert await get(await owner.log_in_again(), "/me/statistics", interval="day", **period) == own
    top = {"user_id": owner.id, "confirmed": 1, "pending": 0, "rejected": 1}
    for since, until in ((start, start + DAY), (start, None), (start - DAY / 2, start + DAY / 2)):
        asked = {"since": since.isoformat()} | ({"until": until.isoformat()} if until else {})
        assert await get(admin, "/referrers", **asked) == [top]
    assert top in await get(admin, "/referrers", limit=100)
    assert await get(admin, "/referrers", since=(start + DAY).isoformat()) == []


async def test_range_is_of_whole_days(client: httpx.AsyncClient) -> None:
    """A time stands for its day in UTC; weeks begin on Monday, months on the first."""
    member = await join(client)
    for interval, first, end, starts in (
        ("day", "2026-11-22", "2026-11-24", ["2026-11-22", "2026-11-23"]),
        ("day", "2026-11-22T10:00:00Z", "2026-11-22T10:00:01Z", ["2026-11-22"]),
        ("day", "2026-11-22T01:00:00+03:00", "2026-11-23T00:00:00Z", ["2026-11-21", "2026-11-22"]),
        ("week", "2026-11-22", "2026-11-24", ["2026-11-16", "2026-11-23"]),
        ("month", "2026-01-31", "2026-03-01", ["2026-01-01", "2026-02-01"]),
        ("month", "0001-01-01", "0001-01-02", ["0001-01-01"]),
    ):
        period: dict[str, Any] = {"from": first, "to": end, "interval": interval}
        items = await get(member, "/me/statistics", **period)
        assert [item["start"] for item in items] == [f"{start}T00:00:00Z" for start in starts]


INVALID_RANGES = (
    ("from", {"from": "yesterday"}),
    ("from", {"from": "2026-13-01"}),
    ("from", {"from": "2026-11-01T00:00:00"}),
    ("from", {"from": "null"}),
    ("to", {"to": "20261201"}),
    ("to", {"to": ""}),
    ("to", {"to": "2026-11-01"}),
    ("to", {"to": "2026-10-01T00:00:00Z"}),
    ("from", {"from": "1926-11-01"}),
    ("interval", {"interval": "year"}),
    ("interval", {"interval": "null"}),
    ("from", {"from": None}),
    ("to", {"to": None}),
    ("interval", {"interval": None}),
)


@pytest.mark.parametrize("path", ["/me/statistics", "/me/statistics.svg"])
async def test_invalid_range_is_explained(client: httpx.AsyncClient, path: str) -> None:
    """By the parameter and what to send; None leaves it out."""
    member = await join(client)
    for name, changed in INVALID_RANGES:
        params: dict[str, Any] = {"from": "2026-11-01", "to": "2026-12-01", "interval": "day"}
        params = {key: value for key, value in (params | changed).items() if value is not None}
        response = await member.request("GET", path, params=params)
        assert response.status_code == 422, (changed, response.text)
        assert [each["parameter"] for each in response.json()["errors"]] == [name], changed
        assert response.json()["errors"][0]["detail"]


async def test_number_of_intervals_is_bounded(client: httpx.AsyncClient) -> None:
    """Ten years of days, or any number of them as long as the intervals are few."""
    member, first = await join(client), datetime(2000, 1, 1, tzinfo=UTC)
    end = first + MAX_INTERVALS * DAY
    period: dict[str, Any] = {"from": first.isoformat(), "to": end.isoformat()}
    assert len(await get(member, "/me/statistics", interval="day", **period)) == MAX_INTERVALS
    period["to"] = (end + DAY).isoformat()
    refused = await member.request("GET", "/me/statistics", params=period | {"interval": "day"})
    assert refused.status_code == 422
    assert len(await get(member, "/me/statistics", interval="month", **period)) == 132
    period |= {"from": "0001-01-01", "to": "9999-12-31", "interval": "week"}
    refused = await member.request("GET", "/me/statistics", params=period)
    assert f"At most {MAX_INTERVALS} intervals" in refused.json()["detail"]


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "101"}, {"since": "today"}])
async def test_invalid_filter_of_referrers_is_explained(
    admin: Member, params: dict[str, str]
) -> None:
    """By the parameter."""
    response = await admin.request("GET", "/referrers", params=params)
    assert response.status_code == 422
    assert [each["parameter"] for each in response.json()["errors"]] == list(params)


async def test_picture_shows_the_figures(admin: Member) -> None:
    """Each series as a line with a point for each interval, described for screen readers."""
    params: dict[str, Any] = {"from": "2026-11-01", "to": "2026-11-08", "interval": "day"}
    for path, lines in (("/statistics.svg", 5), ("/me/statistics.svg", 2)):
        response = await admin.request("GET", path, params=params)
        assert response.headers["content-type"].startswith("image/svg+xml")
        policy = response.headers["content-security-policy"]
        assert re.fullmatch(
            r"default-src 'none'; style-src 'sha256-[^' ]{44}'; frame-ancestors 'none'", policy
        )
        picture = ET.fromstring(response.text)  # noqa: S314 - of this service
        assert picture.get("role") == "img"
        titles = {picture.find(f"{SVG}{name}") for name in ("title", "desc")}
        assert {each.get("id") for each in titles if each is not None} == set(
            (picture.get("aria-labelledby") or "").split()
        )
        points = [line.get("points", "").split() for line in picture.iter(f"{SVG}polyline")]
        assert [len(each) for each in points] == [7] * lines
        texts = [text.text for text in picture.iter(f"{SVG}text")]
        assert "Start of the day (UTC)" in texts
        assert "2026-11-01" in texts


async def test_statistics_need_an_account(client: httpx.AsyncClient) -> None:
    """An erased user's token is refused."""
    member = await join(client)
    erased = await member.request("DELETE", "/me", json={"password": "correct horse battery"})
    assert erased.status_code == 204
    params: dict[str, Any] = {"from": "2026-11-01", "to": "2026-11-08", "interval": "day"}
    for path in ("/me/statistics", "/me/statistics.svg"):
        response = await client.get(f"{API}{path}", params=params, headers=member.headers)
        assert response.status_code == 401
