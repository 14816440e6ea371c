"""Sending due deliveries: batches, requests at once, signatures and outcomes."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook as Verifier

from referral.core.entities.events import Event
from referral.core.entities.jobs import DeliverWebhookJob
from referral.core.entities.webhook_deliveries import Delivery, DeliveryStatus
from referral.core.entities.webhooks import DisabledReason, Webhook
from referral.core.errors import RescheduleJob, Unavailable
from referral.core.ports.repositories import Repositories
from referral.core.ports.webhooks import ReceiverResponse, WebhookRequest, WebhookSender
from referral.core.use_cases.webhook_sending import (
    BATCH_SIZE,
    JOB_PERIOD,
    MAX_REQUESTS_PER_WEBHOOK,
    ConcurrencyLimit,
    DeliverWebhook,
    EnqueueDueWebhooks,
)
from tests.core.service import InMemoryService
from tests.support.fakes.webhooks import FakeWebhookSender
from tests.support.waiting import wait_until

URL = "https://shop.example/hook"
SECRET, NEW_SECRET = b"s" * 32, b"n" * 32
SUCCESS = ReceiverResponse(200)
FAILURE = ReceiverResponse(500, "the response was 500", "why")


class Scenario:
    """A webhook with due deliveries, in a service in memory."""

    def __init__(self) -> None:
        self.service, self.sender = InMemoryService(), FakeWebhookSender()
        self.service.override(WebhookSender, self.sender)
        self.webhook = self.make_webhook()

    def make_webhook(self) -> Webhook:
        """Return a webhook for all events."""
        webhook_id = self.service.id_generator.new()
        secret = self.service.cipher.encrypt(SECRET, webhook_id.bytes)
        now = self.service.clock.now()
        return Webhook(webhook_id, URL, ("*",), None, True, None, now, secret)  # noqa: FBT003

    async def add_deliveries(
        self, number: int = 1, data: Mapping[str, object] | None = None
    ) -> list[Event]:
        """Store the webhook and due deliveries, of events with the same data if given."""
        now, new_id = self.service.clock.now(), self.service.id_generator.new
        events = [
            Event(new_id(), "code.created", now, data or {"number": n}) for n in range(number)
        ]
        async with self.service.database.begin() as repositories:
            await repositories.webhooks.add(self.webhook)
            await repositories.events.add(*events)
            await repositories.events.publish(number, wait=True)
            await repositories.deliveries.add(
                [
                    Delivery(new_id(), self.webhook.id, each.id, each.type, now, now, now)
                    for each in events
                ]
            )
        return events

    async def deliver(self) -> None:
        """Run the job of the webhook."""
        await self.service.get(DeliverWebhook)(DeliverWebhookJob(self.webhook.id))

    async def deliveries(self) -> list[Delivery]:
        """Return the stored deliveries, oldest first."""
        async with self.service.database.read() as repositories:
            rows = await repositories.deliveries.list_page(
                self.webhook.id, status=None, after=None, limit=10_000
            )
        return rows[::-1]

    async def statuses(self) -> list[DeliveryStatus]:
        """Return the statuses of the deliveries."""
        return [delivery.status for delivery in await self.deliveries()]

    async def stored_webhook(self) -> Webhook:
        """Return the webhook as it is stored."""
        async with self.service.database.read() as repositories:
            webhook = await repositories.webhooks.find(self.webhook.id)
        assert webhook
        return webhook


@pytest.fixture
def scenario() -> Scenario:
    """A webhook without deliveries."""
    return Scenario()


async def test_all_due_deliveries_are_sent(scenario: Scenario) -> None:
    """In one job, each once, with eight requests at once in the end."""
    events = await scenario.add_deliveries(500)
    await scenario.deliver()
    assert sorted(scenario.sender.event_ids) == sorted(event.id for event in events)
    assert scenario.sender.most == MAX_REQUESTS_PER_WEBHOOK
    assert await scenario.statuses() == [DeliveryStatus.SUCCEEDED] * 500


def test_concurrency_limit() -> None:
    """One request at first and after a failure; each success doubles the number."""
    limit, sizes = ConcurrencyLimit(), []
    for succeeded in (True, True, True, True, False, False, True):
        limit.update(SUCCESS if succeeded else FAILURE)
        sizes.append(limit.allowed)
    assert sizes == [2, 4, 8, 8, 1, 1, 2]


async def test_failing_receiver_has_one_request_at_a_time(scenario: Scenario) -> None:
    """Its failures are stored, each with the next attempt."""

    async def fail(_: WebhookRequest) -> ReceiverResponse:
        return FAILURE

    scenario.sender.answer = fail
    await scenario.add_deliveries(30)
    await scenario.deliver()
    assert (len(scenario.sender.requests), scenario.sender.most) == (30, 1)
    for delivery in await scenario.deliveries():
        assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 1)
        assert (delivery.response_status, delivery.response_body) == (500, "why")
        assert delivery.error == "the response was 500"
        assert delivery.next_attempt_at
        assert delivery.next_attempt_at > scenario.service.clock.now()


async def test_every_attempt_has_the_same_body_and_its_own_signature(scenario: Scenario) -> None:
    """The receiver verifies both, and recognizes the event by its id."""

    async def fail(_: WebhookRequest) -> ReceiverResponse:
        return FAILURE

    scenario.sender.answer = fail
    (event,) = await scenario.add_deliveries()
    for _ in range(2):
        await scenario.deliver()
        scenario.service.clock.advance(seconds=7)
    first, second = scenario.sender.requests
    assert first.body == second.body
    assert json.loads(first.body)["data"] == {"number": 0}
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == str(event.id)
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    for request in (first, second):
        Verifier(b64encode(SECRET).decode()).verify(request.body, dict(request.headers))


async def test_both_secrets_sign_for_a_day(scenario: Scenario) -> None:
    """After a rotation receivers may know either; later only the new one."""
    new = scenario.service.cipher.encrypt(NEW_SECRET, scenario.webhook.id.bytes)
    scenario.webhook = scenario.webhook.rotated(new, scenario.service.clock.now())
    await scenario.add_deliveries()
    await scenario.deliver()
    (request,) = scenario.sender.requests
    for secret in (SECRET, NEW_SECRET):
        Verifier(b64encode(secret).decode()).verify(request.body, dict(request.headers))
    assert request.headers["webhook-signature"].count("v1,") == 2


async def test_unreadable_secret_disables_the_webhook(scenario: Scenario) -> None:
    """Nothing is sent unsigned."""
    await scenario.add_deliveries()
    scenario.service.cipher.keys = [b"other"]
    await scenario.deliver()
    assert not scenario.sender.requests
    webhook = await scenario.stored_webhook()
    assert (webhook.enabled, webhook.disabled_reason) == (False, DisabledReason.UNREADABLE_SECRET)
    assert await scenario.statuses() == [DeliveryStatus.FAILED]


async def test_unreadable_previous_secret_is_left_out(scenario: Scenario) -> None:
    """The newest secret is enough."""
    new = scenario.service.cipher.encrypt(NEW_SECRET, scenario.webhook.id.bytes)
    rotated = scenario.webhook.rotated(new, scenario.service.clock.now())
    scenario.webhook = replace(rotated, previous_secret=b"junk|junk|junk")
    await scenario.add_deliveries()
    await scenario.deliver()
    assert scenario.sender.requests[0].headers["webhook-signature"].count("v1,") == 1


async def test_gone_ends_the_rest(scenario: Scenario) -> None:
    """410 disables the webhook, and no other request follows."""

    async def gone(_: WebhookRequest) -> ReceiverResponse:
        return ReceiverResponse(410, "the response was 410")

    scenario.sender.answer = gone
    await scenario.add_deliveries(500)
    await scenario.deliver()
    assert len(scenario.sender.requests) == 1
    assert (await scenario.stored_webhook()).disabled_reason is DisabledReason.GONE
    assert await scenario.statuses() == [DeliveryStatus.FAILED] * 500


@pytest.mark.parametrize(("external_id", "expected"), [("shop|7", None), (None, "shop|7")])
async def test_echo_of_an_external_id_is_not_stored(
    scenario: Scenario, external_id: str | None, expected: str | None
) -> None:
    """An erasure removes it from the event, and would not find it in a response."""

    async def echo(_: WebhookRequest) -> ReceiverResponse:
        return ReceiverResponse(500, "the response was 500", "shop|7")

    scenario.sender.answer = echo
    await scenario.add_deliveries(data={"user_id": str(UUID(int=7)), "external_id": external_id})
    await scenario.deliver()
    assert [each.response_body for each in await scenario.deliveries()] == [expected]


async def test_slow_receiver_gives_way(scenario: Scenario) -> None:
    """The job ends after a while, so that other webhooks get their turn."""

    async def answer_slowly(_: WebhookRequest) -> ReceiverResponse:
        scenario.service.clock.advance(seconds=14)
        return FAILURE

    scenario.sender.answer = answer_slowly
    await scenario.add_deliveries(5)
    await scenario.deliver()
    assert len(scenario.sender.requests) == 1
    attempts = [delivery.attempts for delivery in await scenario.deliveries()]
    assert sorted(attempts) == [0, 0, 0, 0, 1]
    assert timedelta(seconds=14) > JOB_PERIOD


async def test_no_delivery_is_due(scenario: Scenario) -> None:
    """A webhook that was deleted, or has nothing due, gets no request."""
    await scenario.service.get(DeliverWebhook)(
        DeliverWebhookJob(scenario.service.id_generator.new())
    )
    await scenario.add_deliveries()
    scenario.service.clock.advance(seconds=-1)
    await scenario.deliver()
    assert not scenario.sender.requests


@pytest.mark.parametrize("answered", [3, BATCH_SIZE + 3])
async def test_stopped_job_stores_what_is_done(scenario: Scenario, answered: int) -> None:
    """Outcomes that are known are stored when the worker stops; the other deliveries stay due."""
    stuck = asyncio.Event()

    async def answer(request: WebhookRequest) -> ReceiverResponse:
        if request in scenario.sender.requests[:answered]:
            return SUCCESS
        stuck.set()
        await asyncio.Event().wait()
        return SUCCESS

    scenario.sender.answer = answer
    await scenario.add_deliveries(answered + 7)
    job = asyncio.create_task(scenario.deliver())
    await stuck.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert scenario.sender.running == 0
    assert (await scenario.statuses()).count(DeliveryStatus.SUCCEEDED) == answered
    scenario.sender.answer = None
    await scenario.deliver()
    assert await scenario.statuses() == [DeliveryStatus.SUCCEEDED] * (answered + 7)


async def test_outcomes_are_stored_beside_the_next_batch(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next batch waits for no transaction, and has no delivery of the batch before."""
    begin = scenario.service.database.begin

    @asynccontextmanager
    async def begin_late() -> AsyncIterator[Repositories]:
        await wait_until(lambda: len(scenario.sender.requests) > BATCH_SIZE)
        async with begin() as repositories:
            yield repositories

    await scenario.add_deliveries(BATCH_SIZE + 10)
    monkeypatch.setattr(scenario.service.database, "begin", begin_late)
    await scenario.deliver()
    assert len(set(scenario.sender.event_ids)) == len(scenario.sender.event_ids) == BATCH_SIZE + 10
    assert await scenario.statuses() == [DeliveryStatus.SUCCEEDED] * (BATCH_SIZE + 10)


async def test_failure_of_one_request_keeps_the_outcomes_of_others(scenario: Scenario) -> None:
    """An unexpected error fails the job, after what was delivered is stored."""

    async def answer(request: WebhookRequest) -> ReceiverResponse:
        if request.headers["webhook-id"] == str(last.id):
            raise RuntimeError
        return SUCCESS

    scenario.sender.answer = answer
    *_, last = await scenario.add_deliveries(3)
    with pytest.raises(RuntimeError):
        await scenario.deliver()
    assert (await scenario.statuses()).count(DeliveryStatus.SUCCEEDED) == 2


@asynccontextmanager
async def unavailable() -> AsyncIterator[None]:
    """Begin no transaction."""
    raise Unavailable
    yield


async def test_unavailable_database_does_not_delay_the_webhook(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job runs again at once, without the growing delay of failures."""
    await scenario.add_deliveries()

    async def lose_database(_: WebhookRequest) -> ReceiverResponse:
        monkeypatch.setattr(scenario.service.database, "begin", unavailable)
        return SUCCESS

    scenario.sender.answer = lose_database
    with pytest.raises(RescheduleJob) as raised:
        await scenario.deliver()
    assert raised.value.delay <= timedelta(seconds=1)


async def test_due_webhooks_get_a_job(scenario: Scenario) -> None:
    """Only those that have something due now."""
    enqueue = scenario.service.get(EnqueueDueWebhooks)
    await enqueue()
    assert await scenario.service.jobs() == []
    await scenario.add_deliveries(3)
    await enqueue()
    assert await scenario.service.jobs() == [DeliverWebhookJob(scenario.webhook.id)]
