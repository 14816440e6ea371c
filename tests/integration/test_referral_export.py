"""The export of referrals as CSV: of many rows, by a server that sends over TCP."""

import asyncio
import csv
import io
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.clients import Scope
from tests.conftest import execute
from tests.support.api_client import API, Member, client_headers, join
from tests.support.process_stats import find_worker, memory_usage
from tests.support.service_process import Service, running_service
from tests.support.waiting import wait_for_value
from tests.web.test_authorization import promote
from tests.web.test_permissions import demote

ROWS = 60_000
"""Some 13 MB, which the buffers of two sockets do not hold."""

PATH = f"{API}/referrals.csv"
REASON = {"reason": "=1+1"}
MAX_GROWTH_MB = 30
SMALL_BUFFER_BYTES = 65_536
LAST_CHUNK = b"\r\n0\r\n\r\n"

FILL_SQL = f"""
CREATE FUNCTION id_of(number bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS
    $$ SELECT lpad(to_hex(number), 32, '0')::uuid $$;
INSERT INTO users SELECT id_of(n), 'U' || n || '@example.com', 'u' || n || '@example.com', 'x',
    'member', 'en', false, true, now() FROM generate_series(1, {ROWS + 1}) n;
INSERT INTO referrals (id, referrer_id, referred_id, status, joined_at, risk_signals)
    SELECT id_of(n), id_of(1), id_of(n), CASE n % 100 WHEN 0 THEN 'pending' ELSE 'confirmed' END,
    '2030-01-01Z'::timestamptz + (n * 7919 % {ROWS}) / 3 * interval '1 second',
    CASE n % 7 WHEN 0 THEN ARRAY['same-mailbox', 'burst'] WHEN 1 THEN
    ARRAY['network-of-referrer', 'crowded-network'] ELSE '{{}}' END
    FROM generate_series(2, {ROWS + 1}) n;
ANALYZE
"""  # noqa: S608 - a number
LIST_SQL = "SELECT id::text FROM referrals ORDER BY joined_at DESC, id DESC"
OPEN_SNAPSHOTS_SQL = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND pid <> pg_backend_pid() AND (backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%')
"""


@pytest.fixture(scope="module")
async def service(
    database_url: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """A server process on a database with that many referrals."""
    for statement in FILL_SQL.split(";\n"):
        await execute(database_url, statement)
    with running_service(
        tmp_path_factory.mktemp("service") / "var",
        database_url=database_url,
        signing_key_file=str(key_file),
        email_verification="off",
        worker="off",
    ) as service:
        yield service


@pytest.fixture
async def admin(service: Service, database: PostgresDatabase) -> AsyncIterator[Member]:
    """An admin of that service."""
    async with httpx.AsyncClient(base_url=service.url) as client:
        admin = await join(client)
        await promote(admin, database)
        yield admin


def parse(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def connect(service: Service, admin: Member, version: str = "1.1") -> socket.socket:
    """Request an export."""
    address = urlsplit(service.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    connection.settimeout(60)
    connection.connect((address.hostname, address.port))
    request = (
        f"GET {PATH} HTTP/{version}\r\nHost: {address.netloc}\r\n"
        f"Authorization: {admin.headers['Authorization']}\r\n\r\n"
    )
    connection.sendall(request.encode())
    return connection


def begin_export(service: Service, admin: Member) -> socket.socket:
    """Request an export, and read the beginning of the response only."""
    connection = connect(service, admin)
    begin = connection.recv(1_000)
    assert begin.startswith(b"HTTP/1.1 200 "), begin
    return connection


def read_to_the_end(connection: socket.socket) -> Iterator[bytes]:
    """Yield what a connection still sends."""
    while part := connection.recv(100_000):
        yield part


async def count_exports(admin: Member) -> int:
    """Return how many exports of an admin are in the audit log."""
    wanted = {"actor": admin.id, "action": "referrals.exported"}
    return len((await admin.request("GET", "/audit", params=wanted)).json()["items"])


async def test_export_has_every_referral_once(admin: Member, database_url: str) -> None:
    """In the order of the list, with the same fields, as a file to save."""
    response = await admin.request("GET", "/referrals.csv", timeout=60)
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="referrals.csv"'
    assert response.headers["Cache-Control"] == "no-store"
    assert response.content.endswith(b'"\r\n')
    rows = parse(response.text)
    connection = await asyncpg.connect(database_url)
    expected = [row["id"] for row in await connection.fetch(LIST_SQL)]
    await connection.close()
    assert [row["referral_id"] for row in rows] == expected
    listed = (await admin.request("GET", "/referrals", params={"limit": 100})).json()["items"]
    assert rows[:100] == [as_row(item) for item in listed]
    assert await count_exports(admin) == 1


def as_row(item: dict[str, Any]) -> dict[str, str]:
    """Return the row of an item of the JSON list."""
    risk = item.pop("risk")
    codes = " ".join(signal["code"] for signal in risk["signals"])
    words = {None: "", True: "true", False: "false"}
    cells = {name: words.get(value, str(value)) for name, value in item.items()}
    return cells | {"risk": risk["level"], "risk_signals": codes}


async def test_export_is_filtered(admin: Member) -> None:
    """As the list is; invalid filters are refused."""
    wanted = {"status": "pending", "since": "2030-01-01T02:00:00Z"}
    rows = parse((await admin.request("GET", "/referrals.csv", params=wanted, timeout=60)).text)
    assert 0 < len(rows) < ROWS // 100
    assert {row["status"] for row in rows} == {"pending"}
    assert min(row["joined_at"] for row in rows) >= wanted["since"]
    nothing = await admin.request("GET", "/referrals.csv", params={"code": "null"})
    assert (nothing.status_code, parse(nothing.text)) == (200, [])
    for name in ("status", "referrer_id", "held", "since", "until"):
        refused = await admin.request("GET", "/referrals.csv", params={name: "null"})
        assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, name)


async def test_head_exports_nothing(admin: Member) -> None:
    """It has the headers of GET, and no record in the audit log."""
    response = await admin.request("HEAD", "/referrals.csv")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers.get("Content-Length") in {None, ""}
    assert await count_exports(admin) == 0
    assert (await admin.request("HEAD", "/referrals.csv?status=x")).status_code == 422


async def test_client_that_stops_reading_holds_up_nobody(
    service: Service, admin: Member, database: PostgresDatabase, database_url: str
) -> None:
    """It holds no snapshot and little memory; only its own third export is refused."""
    process = find_worker(service)
    before = memory_usage(process).rss_mb
    watcher = await asyncpg.connect(database_url)

    async def has_no_snapshot() -> bool:
        return not await watcher.fetchval(OPEN_SNAPSHOTS_SQL)

    with closing(begin_export(service, admin)), closing(begin_export(service, admin)):
        await wait_for_value(has_no_snapshot)
        third = await admin.request("GET", "/referrals.csv")
        assert (third.status_code, third.json()["code"]) == (429, "too-many-requests")
        assert int(third.headers["Retry-After"]) > 0
        headers = await client_headers(admin.client, database, Scope.REFERRALS_READ)
        other = await admin.client.get(PATH, headers=headers, timeout=60)
        assert len(parse(other.text)) == ROWS
        assert memory_usage(process).rss_mb - before < MAX_GROWTH_MB
        await wait_for_value(has_no_snapshot)
    await watcher.close()

    async def has_room() -> bool:
        begun = await admin.request("GET", "/referrals.csv", params={"held": "true"})
        return begun.status_code == 200

    await wait_for_value(has_room)


async def test_broken_off_export_has_no_end(
    service: Service, admin: Member, database: PostgresDatabase
) -> None:
    """So that a part is not taken for the whole; here the admin loses the role meanwhile."""
    with closing(begin_export(service, admin)) as connection:
        await demote(admin, database)
        parts = await asyncio.to_thread(lambda: list(read_to_the_end(connection)))
    assert not b"".join(parts).endswith(LAST_CHUNK)


async def test_http_1_0_is_refused(service: Service, admin: Member) -> None:
    """Its responses end with the connection, also those that failed."""
    with closing(connect(service, admin, "1.0")) as connection:
        response = b"".join(read_to_the_end(connection))
    assert response.startswith(b"HTTP/1.0 426 ")
    assert b"newer-http-required" in response


async def test_formulas_are_texts(client: httpx.AsyncClient, database: PostgresDatabase) -> None:
    """A code, an address and a reason that a spreadsheet would run."""
    owner, admin = await join(client), await join(client)
    await promote(admin, database)
    code = await owner.issue_code(code="-1-2")
    bob = await join(client, "=1+1@example.com", referral_code=code["code"])
    found = await admin.request("GET", "/referrals", params={"code": "-1-2"})
    [referral] = found.json()["items"]
    path = f"/referrals/{referral['referral_id']}/reject"
    assert (await admin.request("POST", path, json=REASON)).status_code == 200
    [row] = parse((await admin.request("GET", "/referrals.csv", params={"code": "-1-2"})).text)
    assert (row["id"], row["email"]) == (bob.id, "'=1+1@example.com")
    assert (row["code"], row["reason"]) == ("'-1-2", "'=1+1")
