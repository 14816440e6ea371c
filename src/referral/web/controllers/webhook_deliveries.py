"""Deliveries to a webhook: lists, retries and replays."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.clients import Caller
from referral.core.entities.webhook_deliveries import Delivery, DeliveryStatus
from referral.core.use_cases import webhook_deliveries
from referral.web.auth import authenticate
from referral.web.controllers.webhooks import WEBHOOKS_PATH, WebhookId
from referral.web.field_types import Timestamp
from referral.web.idempotency import (
    IdempotencyKey,
    StoredJsonResponse,
    accepted_response,
    idempotent_request,
    make_stored_response,
    replay_stored_caller_response,
)
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import (
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    READ_ONE_ERRORS,
    problem_responses,
)

DeliveryId = Annotated[UUID, PathParameter(description="The id of the delivery.")]
DeliveryStatusFilter = Annotated[
    DeliveryStatus | None, QueryParameter(description="Only deliveries of this status.")
]


class DeliveryResponse(Struct):
    """An event on its way to a webhook. `response_status` and `error` are those of the last
    attempt: `response_status` is null if the receiver did not respond, `error` if it accepted the
    event. `error` also tells if the delivery failed because the webhook was disabled.
    """

    id: UUID
    event_id: UUID
    event_type: str
    status: DeliveryStatus
    attempts: int
    response_status: int | None
    error: str | None
    created_at: Timestamp
    next_attempt_at: Timestamp | None

    @classmethod
    def from_delivery(cls, delivery: Delivery) -> "DeliveryResponse":
        """Encode a delivery."""
        return cls(
            id=delivery.id,
            event_id=delivery.event_id,
            event_type=delivery.event_type,
            status=delivery.status,
            attempts=delivery.attempts,
            response_status=delivery.response_status,
            error=delivery.error,
            created_at=delivery.created_at,
            next_attempt_at=delivery.next_attempt_at,
        )


class DeliveryPageResponse(Struct):
    """A page of deliveries, newest first."""

    items: list[DeliveryResponse]
    next_cursor: str | None


class ReplayEventsRequest(Struct, forbid_unknown_fields=True):
    """The time whose events are delivered again; `until` is excluded."""

    since: Timestamp
    until: Annotated[Timestamp | None, Meta(description="Now by default.")] = None


class ReplayResponse(Struct):
    """The number of events that are delivered again."""

    count: int


class WebhookDeliveriesController(Controller):
    """Routes for the deliveries of a webhook."""

    path = f"{WEBHOOKS_PATH}/{{webhook_id:uuid}}"
    tags = ("Webhooks",)
    dependencies = {"caller": Provide(authenticate)}

    @get(
        "/deliveries",
        summary="List the deliveries of a webhook",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ONE_ERRORS, errors.InvalidRequest),
        **permitted("listDeliveries"),
    )
    @inject
    async def list_all(
        self,
        webhook_id: WebhookId,
        page: NamedDependency[PageRequest],
        list_deliveries: FromDishka[webhook_deliveries.ListDeliveries],
        status: DeliveryStatusFilter = None,
    ) -> DeliveryPageResponse:
        """List the deliveries of the last 30 days, newest first."""
        list_key = ("deliveries", webhook_id, status)
        found = await list_deliveries(
            webhook_id, status=status, after=page.after(*list_key), limit=page.limit
        )
        items = [DeliveryResponse.from_delivery(delivery) for delivery in found.items]
        return DeliveryPageResponse(items, make_cursor(found.next_after, *list_key))

    @post(
        "/deliveries/{delivery_id:uuid}/retry",
        summary="Retry a delivery",
        status_code=202,
        before_request=replay_stored_caller_response,
        responses=problem_responses(*READ_ONE_ERRORS, *IDEMPOTENCY_ERRORS, errors.WebhookDisabled)
        | {202: ResponseSpec(None, description="The delivery is attempted now.")},
        **permitted("retryDelivery"),
    )
    @inject
    async def retry(
        self,
        request: Request[Any, Any, Any],
        webhook_id: WebhookId,
        delivery_id: DeliveryId,
        caller: NamedDependency[Caller],
        retry_delivery: FromDishka[webhook_deliveries.RetryDelivery],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[None]:
        """Attempt a delivery once more, even if it succeeded before. Scheduled attempts stay as
        they are.
        """
        idempotent = idempotent_request(request, idempotency_key, accepted_response)
        await retry_delivery(caller.actor, webhook_id, delivery_id, idempotent)
        return Response(None, media_type="text/plain")

    @post(
        "/replay",
        summary="Replay events",
        status_code=202,
        before_request=replay_stored_caller_response,
        responses=problem_responses(
            *READ_ONE_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS, errors.WebhookDisabled
        )
        | {
            202: ResponseSpec(
                ReplayResponse, generate_examples=False, description="The events are on their way."
            )
        },
        **permitted("replayEvents"),
    )
    @inject
    async def replay(
        self,
        request: Request[Any, Any, Any],
        webhook_id: WebhookId,
        caller: NamedDependency[Caller],
        data: JSONBody[ReplayEventsRequest],
        replay_events: FromDishka[webhook_deliveries.ReplayEvents],
        idempotency_key: IdempotencyKey = None,
    ) -> ReplayResponse:
        """Deliver the stored events of a time again that the webhook subscribes to now, also those
        from before it was created.
        """

        def make_response(count: int) -> StoredJsonResponse:
            return make_stored_response(202, ReplayResponse(count))

        idempotent = idempotent_request(request, idempotency_key, make_response)
        count = await replay_events(caller.actor, webhook_id, data.since, data.until, idempotent)
        return ReplayResponse(count)
