"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).

A key is looked up before the body is judged, by `recall` or `recall_user` as `before_request` of
the route: a repeated request gets its first answer whatever its values are worth by now.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Any, TypedDict, TypeVar, cast

from dishka import AsyncContainer
from litestar import MediaType, Request, Response
from litestar.params import HeaderParameter
from litestar.serialization import encode_json

from referral.core.entities.idempotency import IdempotentRequest, StoredResponse
from referral.core.policies.idempotency import FindStoredResponse, IdempotentReplay
from referral.core.ports.security import Fingerprinter
from referral.web.auth import authenticate_user
from referral.web.parsing import check_json_body, require_user, respond_to_options
from referral.web.problems import FieldError, ValidationFailed

T = TypeVar("T")

KEY_PATTERN = re.compile(r"[!-~]{1,255}")

ANONYMOUS_CALLER = "nobody"
"""Whose the keys are of those who are not signed in, and cannot be told apart."""

KEY_HEADER = "Idempotency-Key"

IDEMPOTENCY_STATE_KEY = "keyed"
"""Where in a request's state its key and fingerprints are, once they were looked up."""

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name=KEY_HEADER,
        description="Made up by you, best a UUID: the same request with the same key is done once.",
        schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    ),
]


async def replay_stored_response(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Before a request of anyone is read further: give the answer that its key got before."""
    answer = await respond_to_options(request)
    if answer is None:
        await _replay(request, ANONYMOUS_CALLER)
    return answer


async def replay_stored_user_response(request: Request[Any, Any, Any]) -> Response[None] | None:
    """The same for what only users may do."""
    answer = await require_user(request)
    if answer is None:
        await _replay(request, str(await authenticate_user(request)))
    return answer


async def _replay(request: Request[Any, Any, Any], caller: str) -> None:
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return
    if not KEY_PATTERN.fullmatch(key):
        raise ValidationFailed(
            FieldError("Send 1 to 255 visible ASCII characters.", parameter=KEY_HEADER)
        )
    await check_json_body(request)
    container: AsyncContainer = request.app.state.container
    request_bytes = f"{request.method} {request.url.path}\n".encode() + await request.body()
    digest = sha256(f"{caller}\n{key}".encode()).digest()
    fingerprints = (await container.get(Fingerprinter)).compute(request_bytes)
    await (await container.get(FindStoredResponse))(digest, fingerprints)
    request.scope["state"][IDEMPOTENCY_STATE_KEY] = digest, fingerprints


def idempotent_request(
    request: Request[Any, Any, Any], key: str | None, make_response: Callable[[T], StoredResponse]
) -> IdempotentRequest[T] | None:
    """Return what is needed to do a request once, if it carries a key; for routes that `recall`."""
    if key is None:
        return None
    digest, fingerprints = request.scope["state"][IDEMPOTENCY_STATE_KEY]
    return IdempotentRequest(digest, fingerprints, make_response)


class StoredJsonResponse(TypedDict):
    """What is kept of a response; the names are those of the columns that it is stored in."""

    status: int
    body: bytes
    location: str | None


def make_stored_response(
    status: int, body: object, location: str | None = None
) -> StoredJsonResponse:
    """Put a response together as the framework does, to be sent now and again later."""
    encoded = b"" if body is None else encode_json(body)
    return StoredJsonResponse(status=status, body=encoded, location=location)


def send_stored_response(_: Request[Any, Any, Any], error: IdempotentReplay) -> Response[bytes]:
    """Give the answer of the first time."""
    answer = cast("StoredJsonResponse", error.response)
    headers = {"Location": answer["location"]} if answer["location"] else {}
    return Response(
        answer["body"],
        status_code=answer["status"],
        media_type=MediaType.JSON if answer["body"] else MediaType.TEXT,
        headers=headers,
    )
