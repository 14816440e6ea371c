"""Webhooks: creation, changes, secrets and tests."""

from base64 import b64encode
from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from referral.core import errors
from referral.core.entities.clients import Caller
from referral.core.entities.webhooks import (
    MAX_DESCRIPTION_CHARACTERS,
    DisabledReason,
    Webhook,
)
from referral.core.ports.security import SecretCipher
from referral.core.use_cases import webhooks
from referral.web.auth import authenticate
from referral.web.field_types import Timestamp
from referral.web.idempotency import (
    IdempotencyKey,
    StoredJsonResponse,
    accepted_response,
    idempotent_request,
    make_encrypted_response,
    replay_stored_caller_response,
)
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import (
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    READ_ERRORS,
    READ_ONE_ERRORS,
    problem_responses,
)

WEBHOOKS_PATH = "/api/v1/webhooks"
MAX_PATTERNS = 100
SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of Standard Webhooks

WebhookId = Annotated[UUID, PathParameter(description="The id of the webhook.")]
WebhookUrl = Annotated[
    str,
    Meta(
        max_length=2048,
        description="Where events are sent: an `https` URL of a public address, without user, "
        "password and fragment. `http` is for networks that the operator allows.",
        examples=["https://shop.example.com/hooks/referral"],
    ),
]
EventPatterns = Annotated[
    list[Annotated[str, Meta(max_length=64)]],
    Meta(
        min_length=1,
        max_length=MAX_PATTERNS,
        description="Types of events such as `referral.confirmed`, all types of a group such as "
        "`referral.*`, or `*` for all.",
        examples=[["referral.*", "user.registered"]],
    ),
]
WebhookDescription = Annotated[
    str,
    Meta(
        max_length=MAX_DESCRIPTION_CHARACTERS,
        description="A note of yours, in one line.",
        examples=["Shop"],
    ),
]
Secret = Annotated[
    str,
    Meta(
        description="Verify signatures with it (Standard Webhooks). It is shown only once.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwKq7vWm0x1Yc="],
    ),
]


class CreateWebhookRequest(Struct, forbid_unknown_fields=True):
    """The webhook to create."""

    url: WebhookUrl
    events: EventPatterns
    description: WebhookDescription | None = None


class UpdateWebhookRequest(Struct, forbid_unknown_fields=True):
    """The changes; omitted fields keep their value. `description: null` removes the text."""

    url: WebhookUrl | UnsetType = UNSET
    events: EventPatterns | UnsetType = UNSET
    description: WebhookDescription | UnsetType | None = UNSET
    enabled: Annotated[bool, Meta(description="Whether events are sent.")] | UnsetType = UNSET


class WebhookResponse(Struct):
    """A webhook."""

    id: UUID
    url: WebhookUrl
    events: list[str]
    description: str | None
    enabled: bool
    disabled_reason: Annotated[
        DisabledReason | None,
        Meta(
            description="Why the service disabled it: the receiver responded 410 (`gone`), all "
            "attempts failed for 5 days (`failing`), or the secret cannot be decrypted "
            "(`unreadable_secret`). Null if it is enabled, or was disabled by a request."
        ),
    ]
    created_at: Timestamp


class CreatedWebhookResponse(WebhookResponse):
    """A new webhook with its secret."""

    secret: Secret


class WebhookSecretResponse(Struct):
    """The new secret of a webhook."""

    secret: Secret


class WebhookPageResponse(Struct):
    """A page of webhooks, newest first."""

    items: list[WebhookResponse]
    next_cursor: str | None


class WebhooksController(Controller):
    """Routes for webhooks."""

    path = WEBHOOKS_PATH
    tags = ("Webhooks",)
    dependencies = {"caller": Provide(authenticate)}

    @post(
        summary="Create a webhook",
        before_request=replay_stored_caller_response,
        responses=problem_responses(
            *READ_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS, errors.TooManyWebhooks
        )
        | {
            201: ResponseSpec(
                CreatedWebhookResponse,
                generate_examples=False,
                description="The webhook and its secret; its URL is in `Location`.",
            )
        },
        **permitted("createWebhook"),
    )
    @inject
    async def create(
        self,
        request: Request[Any, Any, Any],
        caller: NamedDependency[Caller],
        data: JSONBody[CreateWebhookRequest],
        create_webhook: FromDishka[webhooks.CreateWebhook],
        cipher: FromDishka[SecretCipher],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[CreatedWebhookResponse]:
        """Create a webhook, which receives the events from now on. Deliveries are signed as
        Standard Webhooks (standardwebhooks.com) defines it.
        """

        def make_response(created: webhooks.WebhookWithSecret) -> StoredJsonResponse:
            location = f"{self.path}/{created[0].id}"
            return make_encrypted_response(cipher, 201, _created_webhook(created), location)

        created = await create_webhook(
            caller.actor,
            webhooks.NewWebhook(data.url, data.events, data.description),
            idempotent_request(request, idempotency_key, make_response),
        )
        location = f"{self.path}/{created[0].id}"
        return Response(_created_webhook(created), headers={"Location": location})

    @get(
        summary="List webhooks",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listWebhooks"),
    )
    @inject
    async def list_all(
        self,
        page: NamedDependency[PageRequest],
        list_webhooks: FromDishka[webhooks.ListWebhooks],
    ) -> WebhookPageResponse:
        """List all webhooks of the service, newest first."""
        found = await list_webhooks(after=page.after("webhooks"), limit=page.limit)
        items = [WebhookResponse(**webhook_fields(webhook)) for webhook in found.items]
        return WebhookPageResponse(items, make_cursor(found.next_after, "webhooks"))

    @get(
        "/{webhook_id:uuid}",
        summary="Get a webhook",
        responses=problem_responses(*READ_ONE_ERRORS),
        **permitted("getWebhook"),
    )
    @inject
    async def show(
        self, webhook_id: WebhookId, show_webhook: FromDishka[webhooks.ShowWebhook]
    ) -> WebhookResponse:
        """Return a webhook, without its secret."""
        return WebhookResponse(**webhook_fields(await show_webhook(webhook_id)))

    @patch(
        "/{webhook_id:uuid}",
        summary="Change a webhook",
        responses=problem_responses(*READ_ONE_ERRORS, *BODY_ERRORS),
        **permitted("updateWebhook"),
    )
    @inject
    async def update(
        self,
        webhook_id: WebhookId,
        caller: NamedDependency[Caller],
        data: JSONBody[UpdateWebhookRequest],
        update_webhook: FromDishka[webhooks.UpdateWebhook],
    ) -> WebhookResponse:
        """Change, enable or disable a webhook. A disabled one receives nothing, and its pending
        deliveries fail; replay the missed events after enabling it.
        """
        changes = webhooks.WebhookChanges(
            url=None if data.url is UNSET else data.url,
            events=None if data.events is UNSET else data.events,
            description=None if data.description is UNSET else data.description,
            no_description=data.description is None,
            enabled=None if data.enabled is UNSET else data.enabled,
        )
        changed = await update_webhook(caller.actor, webhook_id, changes)
        return WebhookResponse(**webhook_fields(changed))

    @delete(
        "/{webhook_id:uuid}",
        summary="Delete a webhook",
        responses=problem_responses(*READ_ONE_ERRORS),
        **permitted("deleteWebhook"),
    )
    @inject
    async def delete(
        self,
        webhook_id: WebhookId,
        caller: NamedDependency[Caller],
        delete_webhook: FromDishka[webhooks.DeleteWebhook],
    ) -> None:
        """Delete a webhook with its deliveries."""
        await delete_webhook(caller.actor, webhook_id)

    @post(
        "/{webhook_id:uuid}/rotate-secret",
        summary="Rotate the secret of a webhook",
        status_code=200,
        before_request=replay_stored_caller_response,
        responses=problem_responses(*READ_ONE_ERRORS, *IDEMPOTENCY_ERRORS),
        **permitted("rotateWebhookSecret"),
    )
    @inject
    async def rotate_secret(
        self,
        request: Request[Any, Any, Any],
        webhook_id: WebhookId,
        caller: NamedDependency[Caller],
        rotate_secret: FromDishka[webhooks.RotateWebhookSecret],
        cipher: FromDishka[SecretCipher],
        idempotency_key: IdempotencyKey = None,
    ) -> WebhookSecretResponse:
        """Replace the secret. For 24 hours deliveries have a signature of each of the two newest
        secrets.
        """

        def make_response(rotated: webhooks.WebhookWithSecret) -> StoredJsonResponse:
            return make_encrypted_response(cipher, 200, _rotated_secret(rotated))

        idempotent = idempotent_request(request, idempotency_key, make_response)
        return _rotated_secret(await rotate_secret(caller.actor, webhook_id, idempotent))

    @post(
        "/{webhook_id:uuid}/test",
        summary="Send a test event",
        status_code=202,
        before_request=replay_stored_caller_response,
        responses=problem_responses(*READ_ONE_ERRORS, *IDEMPOTENCY_ERRORS, errors.WebhookDisabled)
        | {202: ResponseSpec(None, description="The event is on its way.")},
        **permitted("sendTestEvent"),
    )
    @inject
    async def send_test(
        self,
        request: Request[Any, Any, Any],
        webhook_id: WebhookId,
        caller: NamedDependency[Caller],
        send_test_event: FromDishka[webhooks.SendTestEvent],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[None]:
        """Send an event of the type `webhook.test` to this webhook, whatever it subscribes to."""
        idempotent = idempotent_request(request, idempotency_key, accepted_response)
        await send_test_event(caller.actor, webhook_id, idempotent)
        return Response(None, media_type="text/plain")


def webhook_fields(webhook: Webhook) -> dict[str, Any]:
    """Return the fields that every response about a webhook has."""
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "description": webhook.description,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "created_at": webhook.created_at,
    }


def _created_webhook(created: webhooks.WebhookWithSecret) -> CreatedWebhookResponse:
    webhook, secret = created
    return CreatedWebhookResponse(**webhook_fields(webhook), secret=_encode_secret(secret))


def _rotated_secret(rotated: webhooks.WebhookWithSecret) -> WebhookSecretResponse:
    _, secret = rotated
    return WebhookSecretResponse(_encode_secret(secret))


def _encode_secret(secret: bytes) -> str:
    return SECRET_PREFIX + b64encode(secret).decode()
