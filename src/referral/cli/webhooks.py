"""`referral webhooks`: inspect webhooks and their deliveries."""

from uuid import UUID

import click
from dishka import AsyncContainer

from referral.cli.environment import run_with_container
from referral.cli.output import CommandGroup, json_option, print_json, print_table
from referral.core.entities.audit import OPERATOR
from referral.core.entities.webhook_deliveries import Delivery, DeliveryStatus
from referral.core.entities.webhooks import Webhook
from referral.core.use_cases.webhook_deliveries import ListDeliveries, RetryDelivery
from referral.core.use_cases.webhooks import ListWebhooks, UpdateWebhook, WebhookChanges

LISTED_PAGE_SIZE = 100


@click.group(cls=CommandGroup)
def webhooks() -> None:
    """List, enable and disable webhooks; list and retry their deliveries."""


@webhooks.command("list")
@json_option
def list_webhooks(*, as_json: bool) -> None:
    """List the webhooks, newest first."""

    async def find(container: AsyncContainer) -> list[Webhook]:
        use_case, found, after = await container.get(ListWebhooks), list[Webhook](), None
        while True:
            page = await use_case(after=after, limit=LISTED_PAGE_SIZE)
            found += page.items
            after = page.next_after
            if after is None:
                return found

    found = run_with_container(find)
    if as_json:
        print_json([_webhook_fields(webhook) for webhook in found])
        return
    rows = [
        (
            webhook.id,
            _state(webhook),
            " ".join(webhook.events),
            webhook.url,
            f"{webhook.created_at:%Y-%m-%d}",
        )
        for webhook in found
    ]
    print_table(("id", "state", "events", "url", "created"), rows)


@webhooks.command("deliveries")
@click.argument("webhook", type=click.UUID)
@click.option(
    "--status",
    type=click.Choice([each.value for each in DeliveryStatus]),
    help="Only deliveries of this status.",
)
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help=("The maximum number of deliveries."),
)
@json_option
def list_deliveries(webhook: UUID, status: str | None, limit: int, *, as_json: bool) -> None:
    """List the deliveries to WEBHOOK, an id, newest first, with their last error."""

    async def find(container: AsyncContainer) -> list[Delivery]:
        use_case = await container.get(ListDeliveries)
        wanted = DeliveryStatus(status) if status else None
        return (await use_case(webhook, status=wanted, after=None, limit=limit)).items

    found = run_with_container(find)
    if as_json:
        print_json([_delivery_fields(delivery) for delivery in found])
        return
    rows = [
        (
            delivery.id,
            delivery.event_type,
            delivery.status,
            delivery.attempts,
            f"{delivery.created_at:%Y-%m-%d %H:%M}",
            _one_line(delivery.error or ""),
        )
        for delivery in found
    ]
    print_table(("id", "event", "status", "attempts", "created", "last error"), rows)


@webhooks.command("retry")
@click.argument("webhook", type=click.UUID)
@click.argument("delivery", type=click.UUID)
@json_option
def retry(webhook: UUID, delivery: UUID, *, as_json: bool) -> None:
    """Attempt DELIVERY to WEBHOOK, two ids, once more; a worker does it at once."""

    async def request(container: AsyncContainer) -> None:
        await (await container.get(RetryDelivery))(OPERATOR, webhook, delivery)

    run_with_container(request)
    if as_json:
        print_json({"webhook_id": webhook, "delivery_id": delivery})
    else:
        click.echo(f"Retried: {delivery}")


@webhooks.command("disable")
@click.argument("webhook", type=click.UUID)
@json_option
def disable(webhook: UUID, *, as_json: bool) -> None:
    """Disable WEBHOOK, an id: it gets nothing, and its pending deliveries fail."""
    _update(webhook, WebhookChanges(enabled=False), "Disabled", as_json=as_json)


@webhooks.command("enable")
@click.argument("webhook", type=click.UUID)
@json_option
def enable(webhook: UUID, *, as_json: bool) -> None:
    """Enable WEBHOOK, an id, for new events; a replay by the API delivers what it missed."""
    _update(webhook, WebhookChanges(enabled=True), "Enabled", as_json=as_json)


def _update(webhook_id: UUID, changes: WebhookChanges, done: str, *, as_json: bool) -> None:
    async def update(container: AsyncContainer) -> Webhook:
        return await (await container.get(UpdateWebhook))(OPERATOR, webhook_id, changes)

    webhook = run_with_container(update)
    if as_json:
        print_json(_webhook_fields(webhook))
    else:
        click.echo(f"{done}: {webhook.id} ({webhook.url})")


def _state(webhook: Webhook) -> str:
    if webhook.enabled:
        return "enabled"
    return f"disabled: {webhook.disabled_reason}" if webhook.disabled_reason else "disabled"


def _webhook_fields(webhook: Webhook) -> dict[str, object]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "description": webhook.description,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "created_at": webhook.created_at,
        "failing_since": webhook.failing_since,
    }


def _delivery_fields(delivery: Delivery) -> dict[str, object]:
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "response_status": delivery.response_status,
        "response_body": delivery.response_body,
        "error": delivery.error,
        "created_at": delivery.created_at,
        "next_attempt_at": delivery.next_attempt_at,
    }


def _one_line(text: str) -> str:
    """Return a text without the control characters that a terminal would interpret."""
    return "".join(each if each.isprintable() else " " for each in text)
