"""Erasure and export: no personal data remains, and the export holds all stored data."""

import json
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.tables import metadata
from referral.core.entities.clients import Scope
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from tests.conftest import ServiceFactory, run_service
from tests.support.api_client import (
    API,
    PASSWORD,
    UNLIMITED_SETTINGS,
    Member,
    join,
    log_in,
    new_email,
    register,
)
from tests.support.captured_logs import captured_logs
from tests.support.clients import create_client
from tests.support.server_processes import RedisProcess
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_for_value

NOT_PERSONAL = "an id or a time, which identifies nobody without the e-mail"
COUNTS = "counts of referrals stay"
NEVER_REUSED = "the text of a code is never reused"
REFERRAL_DIGEST = "a keyed digest, for at most a year: a mailbox counts as one referral"
LIMIT_DIGEST = "a keyed digest, for at most a day: erasure must not reset the mail quota"
AUDITED = "ids, times, and a reason without an address: for REFERRAL_AUDIT_DAYS"
ABOUT_CLIENT = "about a service, not about a person"

KEPT_COLUMNS = {
    "users.id": NOT_PERSONAL,
    "users.role": NOT_PERSONAL,
    "users.locale": NOT_PERSONAL,
    "users.email_verified": NOT_PERSONAL,
    "users.notify_on_referral": NOT_PERSONAL,
    "users.created_at": NOT_PERSONAL,
    "users.blocked_at": NOT_PERSONAL,
    "users.erased_at": NOT_PERSONAL,
    "codes.id": NOT_PERSONAL,
    "codes.user_id": NOT_PERSONAL,
    "codes.text": NEVER_REUSED,
    "codes.text_key": NEVER_REUSED,
    "codes.created_at": NOT_PERSONAL,
    "codes.expires_at": NOT_PERSONAL,
    "codes.max_uses": COUNTS,
    "codes.uses": COUNTS,
    "codes.enabled": NOT_PERSONAL,
    "codes.deleted_at": NOT_PERSONAL,
    "codes.expiry_reported_until": NOT_PERSONAL,
    "referrals.id": NOT_PERSONAL,
    "referrals.referrer_id": COUNTS,
    "referrals.referred_id": COUNTS,
    "referrals.code_id": COUNTS,
    "referrals.code": NEVER_REUSED,
    "referrals.status": COUNTS,
    "referrals.joined_at": COUNTS,
    "referrals.told_by": NOT_PERSONAL,
    "referrals.expires": NOT_PERSONAL,
    "referrals.held": NOT_PERSONAL,
    "referrals.reason": AUDITED,
    "referrals.decided_at": NOT_PERSONAL,
    "referrals.risk_signals": "what an admin decides by, without an address or a network",
    "referrals.confirmed_at": COUNTS,
    "referrals.rejected_at": COUNTS,
    **{
        str(column): COUNTS
        for name in ("daily_statistics", "referrer_statistics", "statistics_changes")
        for column in metadata.tables[name].columns
    },
    "mails.id": LIMIT_DIGEST,
    "mails.address_digest": LIMIT_DIGEST,
    "mails.counted_at": LIMIT_DIGEST,
    "referred_emails.fingerprint": REFERRAL_DIGEST,
    "referred_emails.referred_at": REFERRAL_DIGEST,
    **{f"audit_log.{column.name}": AUDITED for column in metadata.tables["audit_log"].columns},
    "event_outbox.seq": NOT_PERSONAL,
    "event_outbox.id": NOT_PERSONAL,
    "event_outbox.type": NOT_PERSONAL,
    "event_outbox.occurred_at": NOT_PERSONAL,
    "events.id": NOT_PERSONAL,
    "events.position": NOT_PERSONAL,
    "events.type": NOT_PERSONAL,
    "events.occurred_at": NOT_PERSONAL,
    "clients.id": ABOUT_CLIENT,
    "clients.name": ABOUT_CLIENT,
    "clients.secret_digest": ABOUT_CLIENT,
    "clients.scopes": ABOUT_CLIENT,
    "clients.created_at": ABOUT_CLIENT,
    "signing_keys.key_id": "of the service",
    "signing_keys.reported_at": "of the service",
    "imports.digest": "of a file, without its data",
    "imports.started_at": "of an operator's command",
    "imports.progress": "counts and positions in a file",
    "clients.redirect_uris": ABOUT_CLIENT,
    **{f"webhooks.{column.name}": ABOUT_CLIENT for column in metadata.tables["webhooks"].columns},
    "webhook_replays.id": NOT_PERSONAL,
    "webhook_replays.webhook_id": NOT_PERSONAL,
    "webhook_replays.event_types": NOT_PERSONAL,
    "webhook_replays.since": NOT_PERSONAL,
    "webhook_replays.until": NOT_PERSONAL,
    "webhook_replays.after_occurred_at": NOT_PERSONAL,
    "webhook_replays.after_event_id": NOT_PERSONAL,
    "webhook_deliveries.id": NOT_PERSONAL,
    "webhook_deliveries.webhook_id": NOT_PERSONAL,
    "webhook_deliveries.event_id": NOT_PERSONAL,
    "webhook_deliveries.event_type": NOT_PERSONAL,
    "webhook_deliveries.occurred_at": NOT_PERSONAL,
    "webhook_deliveries.created_at": NOT_PERSONAL,
    "webhook_deliveries.status": NOT_PERSONAL,
    "webhook_deliveries.attempts": NOT_PERSONAL,
    "webhook_deliveries.scheduled_failures": NOT_PERSONAL,
    "webhook_deliveries.scheduled_for": NOT_PERSONAL,
    "webhook_deliveries.retry_requested_at": NOT_PERSONAL,
    "webhook_deliveries.response_status": "a number",
    "webhook_deliveries.response_body": "not stored for events with an external id",
    "webhook_deliveries.error": "a text of the service",
    "webhook_deliveries.next_attempt_at": NOT_PERSONAL,
}
"""Columns that keep their value after an erasure, with the reason."""

CLEARED_COLUMNS = {
    "users.email", "users.email_key", "users.password_hash", "users.deliverability",
    "users.confirm_by", "users.external_id", "users.password_cost",
    "event_outbox.data", "event_outbox.external_user_id",
    "events.data", "events.external_user_id",
}  # fmt: skip
"""Columns that an erasure clears in a row that it keeps."""

DELETED_TABLES = {
    "sessions", "refresh_tokens", "login_sessions", "authorization_codes",
    "attempts", "one_time_tokens", "profiles", "verdicts", "user_networks",
}  # fmt: skip
"""Tables whose rows an erasure deletes."""

QUEUE_TABLES = {"pgqueuer", "pgqueuer_log", "pgqueuer_schedules", "pgqueuer_statistics"}
"""Tables of the job queue, which hold ids and no e-mail."""

pytestmark = pytest.mark.usefixtures("statistics_agree")


def test_every_column_is_classified() -> None:
    """A new column must be listed as kept with a reason, cleared, or deleted with its row."""
    columns = {
        str(column)
        for table in metadata.sorted_tables
        for column in table.columns
        if table.name not in DELETED_TABLES
    }
    assert columns == KEPT_COLUMNS.keys() | CLEARED_COLUMNS


async def test_every_table_is_classified(database: PostgresDatabase) -> None:
    """The database has no table beyond the classified ones and those of the queue."""
    query = (
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' "
        "AND tablename !~ '^audit_log_'"  # partitions
    )
    async with database.read() as repositories:
        found = {row["tablename"] for row in await repositories.connection.fetch_sql(query)}
    assert found == {table.name for table in metadata.sorted_tables} | QUEUE_TABLES | {
        "alembic_version"
    }


async def delete_account(member: Member) -> None:
    """Delete the member's account."""
    response = await member.request("DELETE", "/me", json={"password": PASSWORD})
    assert response.status_code == 204


async def dump_database(database: PostgresDatabase) -> str:
    """Return all values of all tables as text."""
    rows: list[str] = []
    async with database.read() as repositories:
        for name in {table.name for table in metadata.sorted_tables} | QUEUE_TABLES:
            found = await repositories.connection.fetch_sql(f"SELECT * FROM {name}")  # noqa: S608 - ours
            values = (value for row in found for value in row)
            rows += [
                value.decode("latin-1") if isinstance(value, bytes) else str(value)
                for value in values
            ]
    return "\n".join(rows)


async def test_email_is_in_no_table(client: httpx.AsyncClient, database: PostgresDatabase) -> None:
    """Neither e-mail nor password hash remains, also not in stored responses."""
    email = "Erna.Erased@Example.com"
    headers = {"Idempotency-Key": "erna"}
    body = {"email": email, "password": PASSWORD}
    await client.post(f"{API}/auth/register", json=body, headers=headers)
    token = (await log_in(client, email)).json()["access_token"]
    erna = Member(client, "", email, {"Authorization": f"Bearer {token}"})
    await erna.request("POST", "/me/codes", json={"lifetime_minutes": 5})
    before = (await dump_database(database)).lower()
    assert before.count("erna.erased") >= 3
    await delete_account(erna)
    after = (await dump_database(database)).lower()
    assert "erna" not in after.replace("external_id", "")
    assert after.count("$argon2id$") == before.count("$argon2id$") - 1


async def test_external_id_is_in_no_table(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Neither of the user nor of the events, published or not."""
    shop = await create_client(client, database, Scope.ADMIN)
    created = await shop.request(
        "PUT",
        f"{API}/users/external/hugo-77",
        json={"email": new_email(), "email_verified": True},
    )
    assert created.status_code == 201
    path = f"{API}/users/{created.json()['id']}"
    await shop.request("GET", f"{API}/events")  # publishes
    for change in ("block", "unblock"):
        changed = await shop.request("POST", f"{path}/{change}", json={"reason": "Spam."})
        assert changed.status_code == 200
    assert (await dump_database(database)).count("hugo-77") == 5
    assert (await shop.request("DELETE", path)).status_code == 204
    assert "hugo-77" not in await dump_database(database)


async def test_failed_mail_leaves_no_email(
    settings: Settings, sink: SmtpSink, database: PostgresDatabase
) -> None:
    """The SMTP server's error text remains in no table of the queue."""
    sink.reply = lambda mail: f"550 5.1.1 <{mail.to}> is unknown here"
    with_mail = replace(settings, smtp_url=sink.url, worker="inline")

    async def has_held_job() -> bool:
        query = "SELECT 1 FROM pgqueuer WHERE status = 'failed'"
        async with database.read() as repositories:
            return bool(await repositories.connection.fetch_sql(query))

    async with run_service(with_mail) as client:
        fay = await join(client)
        await wait_for_value(has_held_job)
        assert fay.email in await dump_database(database)
        await delete_account(fay)
    assert fay.email not in await dump_database(database)


async def test_redis_and_log_hold_no_email_and_no_secret(
    serve: ServiceFactory, settings: Settings, own_redis: RedisProcess
) -> None:
    """Rate limits, look-ups, failed logins and erasure leave nothing, at log level debug."""
    limits = dict.fromkeys(UNLIMITED_SETTINGS, Rate.parse("1000/minute"))
    changed = replace(settings, redis_url=own_redis.url, log_level="debug", **limits)
    with captured_logs("json") as output:
        async with serve(changed) as client:
            gil = await join(client)
            await gil.issue_code()
            await log_in(client, gil.email, f"{PASSWORD} not")
            tokens = (await log_in(client, gil.email)).json()
            await client.get(f"{API}/codes/lookup", params={"email": gil.email})
            await wait_for_value(lambda: dump_redis(own_redis))
            before = await dump_redis(own_redis)
            await delete_account(gil)
            await client.get(f"{API}/codes/lookup", params={"email": gil.email})
            after = await dump_redis(own_redis)
    printed = output.getvalue()
    assert "request" in printed
    bearer = gil.headers["Authorization"].removeprefix("Bearer ")
    for secret in (gil.email, PASSWORD, bearer, tokens["refresh_token"]):
        assert secret not in printed
        assert secret.encode() not in before + after


async def dump_redis(server: RedisProcess) -> bytes:
    """Return all keys and values of a Redis server."""
    async with Redis.from_url(server.url) as redis:
        keys: list[Any] = await redis.keys("*")
        return b"".join([key + (await redis.dump(key) or b"") for key in keys])


async def test_referrer_keeps_the_count_of_erased_users(client: httpx.AsyncClient) -> None:
    """A referral stays without its e-mail, and nothing links to an erased referrer."""
    ann = await join(client)
    code = await ann.issue_code()
    bob = await join(client, referral_code=code["code"])
    await delete_account(bob)
    me = (await ann.request("GET", "/me")).json()
    assert me["referral_count"] == 1
    assert me["recent_referrals"][0]["email"] is None
    listed = (await ann.request("GET", "/me/referrals")).json()["items"]
    assert [(item["id"], item["email"]) for item in listed] == [(bob.id, None)]
    cleo = await join(client, referral_code=code["code"])
    await delete_account(ann)
    assert (await cleo.request("GET", "/me")).json()["referrer"] is None
    assert (await cleo.request("GET", f"/users/{ann.id}/referrals")).status_code == 404


async def test_codes_of_an_erased_user_are_unusable(client: httpx.AsyncClient) -> None:
    """The codes cannot be used, looked up or created again."""
    ann = await join(client)
    await ann.issue_code(code="Gone-For-Good")
    await delete_account(ann)
    assert (await client.get(f"{API}/codes/GONE-FOR-GOOD/validity")).json()["valid"] is False
    found = await client.get(f"{API}/codes/lookup", params={"email": ann.email})
    assert found.status_code == 404
    rejected = await register(client, referral_code="Gone-For-Good")
    assert rejected.json()["type"].endswith("/referral-code-unusable")
    bob = await join(client)
    body = {"code": "gone-for-good", "lifetime_minutes": 5}
    assert (await bob.request("POST", "/me/codes", json=body)).status_code == 409


async def test_erased_user_has_no_access_and_the_email_is_free(client: httpx.AsyncClient) -> None:
    """The access token is rejected, and the e-mail can register again."""
    ann = await join(client)
    await delete_account(ann)
    for method, path in (
        ("GET", "/me"),
        ("GET", "/me/codes"),
        ("GET", "/me/export"),
        ("GET", "/me/referrals"),
        ("PATCH", "/me"),
    ):
        response = await ann.request(method, path, json={} if method == "PATCH" else None)
        assert response.status_code == 401
    code = await ann.request("POST", "/me/codes", json={"lifetime_minutes": 5})
    assert code.status_code == 401
    assert (await log_in(client, ann.email)).status_code == 400
    again = await join(client, ann.email.upper())
    assert again.id != ann.id


async def test_erasure_needs_the_password(client: httpx.AsyncClient) -> None:
    """A wrong password is 422, and the account stays."""
    ann = await join(client)
    rejected = await ann.request("DELETE", "/me", json={"password": "not the password"})
    assert rejected.status_code == 422
    assert rejected.json()["errors"][0]["pointer"] == "/password"
    assert (await ann.request("GET", "/me")).status_code == 200


async def test_export_holds_all_stored_data(client: httpx.AsyncClient) -> None:
    """The export has account, codes, referrals, referrer and sessions, and no hash or digest."""
    ann = await join(client)
    code = await ann.issue_code(code="Export-Me")
    bob = await join(client, referral_code=code["code"])
    ann_export = (await ann.request("GET", "/me/export")).json()
    assert ann_export["account"]["email"] == ann.email
    assert [item["code"] for item in ann_export["codes"]] == ["Export-Me"]
    assert [item["email"] for item in ann_export["referrals"]] == [bob.email]
    assert len(ann_export["sessions"]) == 1
    [network] = ann_export["networks"]
    assert network == dict.fromkeys(("seen_at", "registered_at"), ann_export["exported_at"])
    assert ann_export["joined_by"] is None
    bob_export = (await bob.request("GET", "/me/export")).json()
    assert bob_export["joined_by"]["code"] == "Export-Me"
    assert ann.email not in json.dumps(bob_export)
    assert bob_export["joined_by"]["referrer_id"] == ann.id
    assert "argon2" not in json.dumps(ann_export)
