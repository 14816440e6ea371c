"""Idempotency keys: the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header).

A route that takes a key has one of the `replay_stored_…` functions as its `before_request` hook.
The hook runs before the body is validated, so a retried request gets the stored response of the
first one even if its values have become invalid since.
"""

import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Annotated, Any, TypedDict, TypeVar, cast

from dishka import AsyncContainer
from litestar import MediaType, Request, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter
from litestar.serialization import encode_json

from referral.core.entities.idempotency import IdempotentRequest, StoredResponse
from referral.core.errors import IdempotencyKeyReused
from referral.core.policies.idempotency import FindStoredResponse, IdempotentReplay
from referral.core.ports.security import Fingerprinter, SecretCipher
from referral.web.auth import authenticate, authenticate_user
from referral.web.before_request import require_user, respond_to_options
from referral.web.problems import (
    FieldError,
    ProblemDetails,
    ValidationFailed,
    handle_core_error,
)
from referral.web.request_body import check_json_body

T = TypeVar("T")

KEY_PATTERN = re.compile(r"[!-~]{1,255}")

ANONYMOUS_CALLER = "nobody"
"""The owner of the keys of all unauthenticated requests, which cannot be told apart."""

KEY_HEADER = "Idempotency-Key"

ENCRYPTED_MARK = b"\0"
"""The first byte of an encrypted body; JSON never begins with it."""

STORED_RESPONSE_CONTEXT = b"stored response"

IDEMPOTENCY_STATE_KEY = "idempotency_digests"
"""The key of the request state under which the digests of the key and of the request are stored."""

MAIL_ACCEPTED = {202: ResponseSpec(None, description="The mail is queued.")}

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name=KEY_HEADER,
        description="A unique value of your choice, such as a UUID. A request that is repeated "
        "with the same key is executed once.",
        schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    ),
]


async def replay_stored_response(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Find the stored response of an unauthenticated request; raises `IdempotentReplay`."""
    response = await respond_to_options(request)
    if response is None:
        await _replay(request, ANONYMOUS_CALLER)
    return response


async def replay_stored_user_response(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Authenticate the user, then find the stored response; raises `IdempotentReplay`."""
    response = await require_user(request)
    if response is None:
        await _replay(request, str(await authenticate_user(request)))
    return response


async def replay_stored_caller_response(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Find the stored response for the user or client of a route with `require_scope`."""
    response = await respond_to_options(request)
    if response is None:
        caller = await authenticate(request)
        await _replay(request, str(caller.user_id or caller.client_id))
    return response


async def _replay(request: Request[Any, Any, Any], caller: str) -> None:
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return
    if not KEY_PATTERN.fullmatch(key):
        detail = "Send 1 to 255 visible ASCII characters."
        raise ValidationFailed(FieldError(detail, parameter=KEY_HEADER))
    await check_json_body(request)
    container: AsyncContainer = request.app.state.container
    request_bytes = f"{request.method} {request.url.path}\n".encode() + await request.body()
    digest = sha256(f"{caller}\n{key}".encode()).digest()
    request_digests = (await container.get(Fingerprinter)).compute(request_bytes)
    await (await container.get(FindStoredResponse))(digest, request_digests)
    request.scope["state"][IDEMPOTENCY_STATE_KEY] = digest, request_digests


def idempotent_request(
    request: Request[Any, Any, Any], key: str | None, make_response: Callable[[T], StoredResponse]
) -> IdempotentRequest[T] | None:
    """Return what a use case needs to execute the request once, or None without a key.

    The route must have one of this module's hooks.
    """
    if key is None:
        return None
    digest, request_digests = request.scope["state"][IDEMPOTENCY_STATE_KEY]
    return IdempotentRequest(digest, request_digests, make_response)


class StoredJsonResponse(TypedDict):
    """A stored response; the names are those of its database columns."""

    status: int
    body: bytes
    location: str | None


def make_stored_response(
    status: int, body: object, location: str | None = None
) -> StoredJsonResponse:
    """Encode a response as Litestar does, so that a replay has the same bytes."""
    encoded = b"" if body is None else encode_json(body)
    return StoredJsonResponse(status=status, body=encoded, location=location)


def make_encrypted_response(
    cipher: SecretCipher, status: int, body: object, location: str | None = None
) -> StoredJsonResponse:
    """Encode a response that contains a secret: a database dump must not contain it."""
    stored = make_stored_response(status, body, location)
    encrypted = cipher.encrypt(stored["body"], STORED_RESPONSE_CONTEXT)
    return {**stored, "body": ENCRYPTED_MARK + encrypted}


def send_stored_response(
    request: Request[Any, Any, Any], error: IdempotentReplay
) -> Response[bytes] | Response[ProblemDetails]:
    """Respond with the stored response of the first request."""
    stored = cast("StoredJsonResponse", error.response)
    body: bytes | None = stored["body"]
    if stored["body"].startswith(ENCRYPTED_MARK):
        cipher: SecretCipher = request.app.state.secret_cipher
        encrypted = stored["body"].removeprefix(ENCRYPTED_MARK)
        body = cipher.decrypt(encrypted, STORED_RESPONSE_CONTEXT)
    if body is None:
        return handle_core_error(request, IdempotencyKeyReused())
    return Response(
        body,
        status_code=stored["status"],
        media_type=MediaType.JSON,
        headers={"Location": stored["location"]} if stored["location"] else {},
    )


async def respond_accepted(
    use_case: Callable[[T, IdempotentRequest[None] | None], Awaitable[None]],
    argument: T,
    request: Request[Any, Any, Any],
    key: str | None,
) -> Response[None]:
    """Call a use case that enqueues a mail, once per idempotency key, and respond with 202."""
    await use_case(argument, idempotent_request(request, key, accepted_response))
    return Response(None, media_type=MediaType.TEXT)


def accepted_response(_: None) -> StoredJsonResponse:
    """Return the stored response 202 without a body."""
    return make_stored_response(202, None)
