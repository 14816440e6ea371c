"""`referral webhooks`."""

from datetime import timedelta
from uuid import UUID

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.webhook_deliveries import DeliveryStatus
from referral.core.entities.webhooks import DisabledReason
from tests.contracts.rows import NOW, store_delivery, store_webhook
from tests.integration.conftest import Run, RunJson

UNKNOWN = str(UUID(int=404))


async def test_webhooks_are_listed(database: PostgresDatabase, run: Run, run_json: RunJson) -> None:
    """All of them, newest first, with the reason why one is disabled and without secrets."""
    webhooks = [await store_webhook(database) for _ in range(101)]
    gone = await store_webhook(database, enabled=False, disabled_reason=DisabledReason.GONE)
    listed = run_json("webhooks", "list")
    assert [each["id"] for each in listed] == [str(each.id) for each in [gone, *webhooks[::-1]]]
    assert listed[0] == {
        "id": str(gone.id),
        "url": gone.url,
        "events": ["*"],
        "description": "Shop",
        "enabled": False,
        "disabled_reason": "gone",
        "created_at": NOW.isoformat().replace("+00:00", "Z"),
        "failing_since": None,
    }
    head, first, second, *_ = run("webhooks", "list").stdout.splitlines()
    assert head.split() == ["id", "state", "events", "url", "created"]
    assert first.split() == [str(gone.id), "disabled:", "gone", "*", gone.url, "2026-01-31"]
    assert second.split()[1] == "enabled"


async def test_deliveries_are_listed_and_retried(
    database: PostgresDatabase, run: Run, run_json: RunJson
) -> None:
    """With the response of the receiver in JSON; a terminal gets no control characters."""
    webhook = await store_webhook(database)
    pending = await store_delivery(database, webhook)
    failed = await store_delivery(
        database,
        webhook,
        status=DeliveryStatus.FAILED,
        scheduled_for=None,
        attempts=10,
        response_status=500,
        response_body="\x1b[2J",
        error="HTTP 500: \x1b[2J",
        created_at=NOW + timedelta(seconds=1),
    )
    webhook_id = str(webhook.id)
    listed = run_json("webhooks", "deliveries", webhook_id)
    assert [each["id"] for each in listed] == [str(failed.id), str(pending.id)]
    assert (listed[0]["response_body"], listed[0]["response_status"]) == ("\x1b[2J", 500)
    lines = run("webhooks", "deliveries", webhook_id, "--status", "failed").stdout.splitlines()
    assert lines[0].split()[:4] == ["id", "event", "status", "attempts"]
    assert lines[1].startswith(f"{failed.id}  code.created  failed  10")
    assert len(lines) == 2
    assert "\x1b" not in lines[1]
    assert len(run_json("webhooks", "deliveries", webhook_id, "--limit", "1")) == 1
    retried = run("webhooks", "retry", webhook_id, str(failed.id))
    assert retried.stdout == f"Retried: {failed.id}\n"
    again = run_json("webhooks", "retry", webhook_id, str(failed.id))
    assert again == {"webhook_id": webhook_id, "delivery_id": str(failed.id)}
    [due] = run_json("webhooks", "deliveries", webhook_id, "--status", "failed")
    assert due["next_attempt_at"] is not None


async def test_webhook_is_disabled_and_enabled(
    database: PostgresDatabase, run: Run, run_json: RunJson
) -> None:
    """Disabling fails its pending deliveries, which cannot be retried; both are audited."""
    webhook = await store_webhook(database)
    delivery = await store_delivery(database, webhook)
    assert run("webhooks", "disable", str(webhook.id)).stdout == (
        f"Disabled: {webhook.id} ({webhook.url})\n"
    )
    disabled = run_json("webhooks", "disable", str(webhook.id))
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, None)
    [failed] = run_json("webhooks", "deliveries", str(webhook.id))
    assert (failed["status"], failed["error"]) == ("failed", "The webhook was disabled.")
    refused = run("webhooks", "retry", str(webhook.id), str(delivery.id))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Error: This webhook is disabled. Enable it first.\n"
    assert run_json("webhooks", "enable", str(webhook.id))["enabled"] is True
    assert run("webhooks", "enable", str(webhook.id)).stdout == (
        f"Enabled: {webhook.id} ({webhook.url})\n"
    )
    query = "SELECT actor_type, action FROM audit_log WHERE subject = $1 ORDER BY id"
    async with database.read() as repositories:
        rows = await repositories.connection.fetch_sql(query, str(webhook.id))
    actions = [("operator", "webhook.disabled"), ("operator", "webhook.enabled")]
    assert [tuple(row) for row in rows] == actions


async def test_unknown_ids_are_errors(database: PostgresDatabase, run: Run) -> None:
    """One line each; an id that is no UUID is a wrong argument."""
    webhook = await store_webhook(database)
    for arguments, what in (
        (("deliveries", UNKNOWN), "webhook"),
        (("disable", UNKNOWN), "webhook"),
        (("retry", UNKNOWN, UNKNOWN), "webhook"),
        (("retry", str(webhook.id), UNKNOWN), "delivery to this webhook"),
    ):
        result = run("webhooks", *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"Error: No {what} has this id.\n"
    assert run("webhooks", "disable", "shop").returncode == 2
