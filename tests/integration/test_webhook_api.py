"""The routes of webhooks over a real database."""

import json
from base64 import b64decode
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.clients import Scope
from tests.conftest import fetch_value
from tests.contracts.rows import make_delivery, make_webhook
from tests.support.api_client import API, client_headers, join
from tests.support.database_dump import dump_tables
from tests.support.fakes.system import FakeClock

HOOKS = f"{API}/webhooks"
URL = "https://shop.example/hook"
NEW = {"url": URL, "events": ["referral.*", "code.created"], "description": "Shop"}


@pytest.fixture
async def hooks(client: httpx.AsyncClient, database: PostgresDatabase) -> httpx.AsyncClient:
    """An HTTP client that may manage webhooks; there are none."""
    async with database.begin() as repositories:
        await repositories.connection.execute_sql("TRUNCATE webhooks CASCADE")
    client.headers.update(await client_headers(client, database, Scope.WEBHOOKS))
    return client


async def create(hooks: httpx.AsyncClient, **changed: Any) -> dict[str, Any]:
    """Create a webhook."""
    response = await hooks.post(HOOKS, json=NEW | changed)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the type of a problem."""
    return response.status_code, response.json()["code"]


async def test_webhook_is_created_shown_and_deleted(hooks: httpx.AsyncClient) -> None:
    """The secret is in the first response only."""
    response = await hooks.post(HOOKS, json=NEW)
    created = response.json()
    assert response.headers["Location"] == f"{HOOKS}/{created['id']}"
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    assert len(b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert created == NEW | {
        "id": created["id"],
        "enabled": True,
        "disabled_reason": None,
        "created_at": created["created_at"],
    }
    url = response.headers["Location"]
    assert (await hooks.get(url)).json() == created
    assert created in (await hooks.get(HOOKS, params={"limit": 100})).json()["items"]
    assert (await hooks.delete(url)).status_code == 204
    for request in (hooks.get(url), hooks.delete(url), hooks.patch(url, json={})):
        assert problem(await request) == (404, "not-found")


async def test_webhooks_are_listed_in_pages(hooks: httpx.AsyncClient) -> None:
    """A cursor belongs to its list."""
    old, new = [await create(hooks) for _ in range(2)]
    first = (await hooks.get(HOOKS, params={"limit": 1})).json()
    assert [item["id"] for item in first["items"]] == [new["id"]]
    after = {"limit": 1, "cursor": first["next_cursor"]}
    assert (await hooks.get(HOOKS, params=after)).json()["items"][0]["id"] == old["id"]
    wrong = await hooks.get(f"{HOOKS}/{new['id']}/deliveries", params=after)
    assert problem(wrong) == (422, "invalid-request")


async def test_webhook_is_changed(hooks: httpx.AsyncClient) -> None:
    """Only the named fields change; null removes the description."""
    created = await create(hooks)
    del created["secret"]
    url = f"{HOOKS}/{created['id']}"
    for change in (
        {},
        {"url": "https://other.example/"},
        {"events": ["*"]},
        {"description": "Other"},
        {"description": None},
        {"enabled": False},
        {"enabled": True},
    ):
        created |= change
        response = await hooks.patch(url, json=change)
        assert (response.status_code, response.json()) == (200, created)
        assert (await hooks.get(url)).json() == created


BAD_DESCRIPTIONS: tuple[Any, ...] = (5, [], "x" * 501, "a\nb", "a\0b", "\x7f")
HOSTILE: list[tuple[str, Any]] = [
    *(
        ("/url", url)
        for url in (
            None, 5, "", "x" * 2049, f"https://shop.example/{'a' * 2028}", "ftp://shop.example/",
            "http://shop.example/", "https://ann:secret@shop.example/", "https://shop.example:0/",
            "https://shop.example:65536/", "https://shop.example/\r\nX: y", "https://shop.example/\0",
            "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
            "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/", "https://１２７.０.０.１/",  # noqa: RUF001
            "//shop.example/", "https:///", "https://shop.example/#a", "javascript:alert(1)",
        )
    ),
    *(
        ("/events", events)
        for events in (
            None, "*", [], ["*"] * 101, ["webhook.test"], ["webhook.*"], ["user"], ["*.*"], [""],
            ["user.\0"], {"0": "*"},
        )
    ),
    ("/events/0", [5]),
    ("/events/0", ["x" * 65]),
    *(("/description", text) for text in BAD_DESCRIPTIONS),
]  # fmt: skip


@pytest.mark.parametrize(("pointer", "value"), HOSTILE)
async def test_invalid_values_are_rejected(
    hooks: httpx.AsyncClient, pointer: str, value: object
) -> None:
    """At the creation and in a change, with a pointer to the field."""
    created = await create(hooks)
    field = pointer.split("/")[1]
    for response in (
        await hooks.post(HOOKS, json=NEW | {field: value}),
        await hooks.patch(f"{HOOKS}/{created['id']}", json={field: value}),
    ):
        assert problem(response) == (422, "invalid-request")
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    shown = (await hooks.get(f"{HOOKS}/{created['id']}")).json()
    assert shown == {name: value for name, value in created.items() if name != "secret"}


@pytest.mark.parametrize(
    "description", ["", "Лавка 👨‍👩‍👧", "=1+1", "<b>", "\u202eback", "x" * 500]
)
async def test_any_line_of_text_is_stored_exactly(
    hooks: httpx.AsyncClient, description: str
) -> None:
    """Whatever its characters are."""
    assert (await create(hooks, description=description))["description"] == description


async def test_unknown_fields_are_rejected(hooks: httpx.AsyncClient) -> None:
    """Nobody may believe that a secret was taken."""
    url = f"{HOOKS}/{(await create(hooks))['id']}"
    for response in (
        await hooks.post(HOOKS, json=NEW | {"secret": "whsec_AAAA"}),
        await hooks.patch(url, json={"secret": "whsec_AAAA"}),
        await hooks.post(f"{url}/replay", json={"since": "2026-01-01T00:00:00Z", "x": 1}),
    ):
        assert problem(response) == (422, "invalid-request")


@pytest.mark.parametrize("webhook_id", ["x", str(UUID(int=404)), "0" * 32, "%00"])
async def test_unknown_webhook_is_not_found(hooks: httpx.AsyncClient, webhook_id: str) -> None:
    """On every route, whatever the id looks like."""
    url = f"{HOOKS}/{webhook_id}"
    retry = f"{url}/deliveries/{uuid4()}/retry"
    responses = [
        *[await hooks.get(path) for path in (url, f"{url}/deliveries")],
        *[await hooks.post(path) for path in (f"{url}/test", f"{url}/rotate-secret", retry)],
        await hooks.post(f"{url}/replay", json={"since": "2026-01-01T00:00:00Z"}),
        await hooks.patch(url, json={"enabled": False}),
        await hooks.delete(url),
    ]
    assert {problem(response) for response in responses} == {(404, "not-found")}


async def test_secret_is_stored_encrypted_only(
    hooks: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Neither the table nor the stored responses contain it; a repeated request gets it again."""
    headers = {"Idempotency-Key": uuid4().hex}
    created = [await hooks.post(HOOKS, json=NEW, headers=headers) for _ in range(2)]
    rotate = f"{created[0].headers['Location']}/rotate-secret"
    headers = {"Idempotency-Key": uuid4().hex}
    rotated = [await hooks.post(rotate, headers=headers) for _ in range(2)]
    for first, second in (created, rotated):
        assert first.content == second.content
        assert first.status_code == second.status_code
        assert first.headers.get("Location") == second.headers.get("Location")
    dump = await dump_tables(database)
    for response in (created[0], rotated[0]):
        secret = response.json()["secret"].removeprefix("whsec_")
        raw = b64decode(secret)
        for form in (secret, raw.hex(), secret.encode().hex()):
            assert form not in dump
    assert created[0].json()["id"] in dump


async def test_key_belongs_to_the_caller(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Another client with the same key gets a webhook of its own; another body is refused."""
    key = {"Idempotency-Key": uuid4().hex}
    first, second = [await client_headers(client, database, Scope.WEBHOOKS) | key for _ in range(2)]
    one = await client.post(HOOKS, json=NEW, headers=first)
    two = await client.post(HOOKS, json=NEW, headers=second)
    assert one.json()["id"] != two.json()["id"]
    reused = await client.post(HOOKS, json=NEW | {"events": ["*"]}, headers=first)
    assert problem(reused) == (422, "idempotency-key-reused")


async def test_test_event_is_delivered_to_one_webhook(
    hooks: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Once per idempotency key, and not while the webhook is disabled."""
    url, other = [f"{HOOKS}/{(await create(hooks))['id']}" for _ in range(2)]
    headers = {"Idempotency-Key": uuid4().hex}
    for _ in range(2):
        response = await hooks.post(f"{url}/test", headers=headers)
        assert (response.status_code, response.content) == (202, b"")
    [delivery] = (await hooks.get(f"{url}/deliveries")).json()["items"]
    now = clock.now().isoformat().replace("+00:00", "Z")
    assert delivery == {
        "id": delivery["id"],
        "event_id": delivery["event_id"],
        "event_type": "webhook.test",
        "status": "pending",
        "attempts": 0,
        "response_status": None,
        "error": None,
        "created_at": now,
        "next_attempt_at": now,
    }
    assert (await hooks.get(f"{other}/deliveries")).json()["items"] == []
    await hooks.patch(url, json={"enabled": False})
    assert problem(await hooks.post(f"{url}/test")) == (409, "webhook-disabled")
    retry = f"{url}/deliveries/{delivery['id']}/retry"
    assert problem(await hooks.post(retry)) == (409, "webhook-disabled")
    replay = await hooks.post(f"{url}/replay", json={"since": "2026-01-01T00:00:00Z"})
    assert problem(replay) == (409, "webhook-disabled")
    [failed] = (await hooks.get(f"{url}/deliveries?status=failed")).json()["items"]
    assert (failed["id"], failed["next_attempt_at"]) == (delivery["id"], None)
    assert failed["error"] == "The webhook was disabled."


async def test_deliveries_are_filtered_and_retried(
    hooks: httpx.AsyncClient, database: PostgresDatabase, clock: FakeClock
) -> None:
    """A retry makes the delivery due, and leaves its status."""
    created = await create(hooks)
    webhook, path = make_webhook(id=UUID(created["id"])), f"{HOOKS}/{created['id']}/deliveries"
    ended: dict[str, Any] = {"scheduled_for": None, "attempts": 1}
    rows = {
        status: make_delivery(webhook, status=status, **ended if status != "pending" else {})
        for status in ("pending", "succeeded", "failed")
    }
    async with database.begin() as repositories:
        await repositories.deliveries.add(list(rows.values()))
    newest_first = [str(row.id) for row in reversed(rows.values())]
    listed = (await hooks.get(path)).json()["items"]
    assert [item["id"] for item in listed] == newest_first
    for status, row in rows.items():
        found = (await hooks.get(path, params={"status": status})).json()["items"]
        assert [item["id"] for item in found] == [str(row.id)]
        assert (await hooks.post(f"{path}/{row.id}/retry")).status_code == 202
        [again] = (await hooks.get(path, params={"status": status})).json()["items"]
        assert datetime.fromisoformat(again["next_attempt_at"]) <= clock.now()
    for status in ("x", "", "null", "PENDING"):
        invalid = await hooks.get(path, params={"status": status})
        assert problem(invalid) == (422, "invalid-request")
    other = await create(hooks)
    foreign = f"{HOOKS}/{other['id']}/deliveries/{rows['failed'].id}/retry"
    assert problem(await hooks.post(foreign)) == (404, "not-found")


@pytest.mark.parametrize(
    ("pointer", "body"),
    [
        ("/since", {"since": None}),
        ("/since", {"since": "2026-01-01T00:00:00"}),
        ("/since", {"since": "2026-01-01"}),
        ("/since", {"since": 0}),
        ("/since", {"since": "9999-12-31T23:59:59Z"}),
        ("/since", {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
        ("/since", {"since": "2026-01-01T00:00:00Z", "until": "2025-01-01T00:00:00+14:00"}),
        ("/until", {"since": "2026-01-01T00:00:00Z", "until": "soon"}),
        ("/until", {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00"}),
        ("/since", {}),
    ],
)
async def test_replay_needs_a_time(
    hooks: httpx.AsyncClient, pointer: str, body: dict[str, Any]
) -> None:
    """With an offset, and the beginning before the end."""
    response = await hooks.post(f"{HOOKS}/{(await create(hooks))['id']}/replay", json=body)
    assert problem(response) == (422, "invalid-request")
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"since": "0001-01-01T00:00:00+14:00"}, 1),
        ({"since": "0001-01-01T00:00:00+14:00", "until": "0001-01-02T00:00:00+14:00"}, 0),
        ({"since": "2020-01-01T00:00:00Z", "until": "9999-12-31T23:59:59-14:00"}, 1),
    ],
)
async def test_replay_takes_extreme_times(
    client: httpx.AsyncClient,
    database: PostgresDatabase,
    clock: FakeClock,
    times: dict[str, str],
    expected: int,
) -> None:
    """They select the stored events of that time."""
    async with database.begin() as repositories:
        await repositories.connection.execute_sql("TRUNCATE event_outbox, events, webhooks CASCADE")
    await (await join(client)).issue_code()
    async with database.begin() as repositories:
        await repositories.events.publish(10, wait=True)
    clock.advance(seconds=1)
    client.headers.update(await client_headers(client, database, Scope.WEBHOOKS))
    response = await client.post(f"{HOOKS}/{(await create(client))['id']}/replay", json=times)
    assert (response.status_code, response.json()) == (202, {"count": expected})


async def test_changes_are_in_the_audit_log(hooks: httpx.AsyncClient, database_url: str) -> None:
    """With the client that made them."""
    created = await create(hooks)
    url = f"{HOOKS}/{created['id']}"
    await hooks.patch(url, json={"events": ["*"], "enabled": False})
    await hooks.patch(url, json={"enabled": True})
    await hooks.post(f"{url}/rotate-secret")
    await hooks.post(f"{url}/test")
    await hooks.post(f"{url}/replay", json={"since": "2026-01-01T00:00:00Z"})
    await hooks.delete(url)
    query = "SELECT json_agg(action) FROM audit_log WHERE subject = $1 AND actor_type = 'client'"
    actions = json.loads(str(await fetch_value(database_url, query, created["id"])))
    groups = ("changed", "created", "deleted", "disabled", "enabled", "replayed")
    names = (*groups, "secret-rotated", "tested")
    assert sorted(actions) == [f"webhook.{name}" for name in names]
