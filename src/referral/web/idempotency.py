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

from referral.core.entities.idempotency import IdempotentRequest, KeptResponse
from referral.core.policies.idempotency import AnsweredBefore, RecallAnswer
from referral.core.ports.security import Fingerprints
from referral.web.auth import identify_user
from referral.web.parsing import check_json, check_request, check_user
from referral.web.problems import Fault, Misfit

T = TypeVar("T")

SHAPE = re.compile(r"[!-~]{1,255}")

NOBODY = "nobody"
"""Whose the keys are of those who are not signed in, and cannot be told apart."""

HEADER = "Idempotency-Key"

KEYED = "keyed"
"""Where in a request's state its key and fingerprints are, once they were looked up."""

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name=HEADER,
        description="Made up by you, best a UUID: the same request with the same key is done once.",
        schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    ),
]


async def recall(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Before a request of anyone is read further: give the answer that its key got before."""
    answer = await check_request(request)
    if answer is None:
        await _recall(request, NOBODY)
    return answer


async def recall_user(request: Request[Any, Any, Any]) -> Response[None] | None:
    """The same for what only users may do."""
    answer = await check_user(request)
    if answer is None:
        await _recall(request, str(await identify_user(request)))
    return answer


async def _recall(request: Request[Any, Any, Any], caller: str) -> None:
    key = request.headers.get(HEADER)
    if key is None:
        return
    if not SHAPE.fullmatch(key):
        raise Misfit(Fault("Send 1 to 255 visible ASCII characters.", parameter=HEADER))
    await check_json(request)
    container: AsyncContainer = request.app.state.container
    what = f"{request.method} {request.url.path}\n".encode() + await request.body()
    digest = sha256(f"{caller}\n{key}".encode()).digest()
    fingerprints = (await container.get(Fingerprints)).of(what)
    await (await container.get(RecallAnswer))(digest, fingerprints)
    request.scope["state"][KEYED] = digest, fingerprints


def attempt_of(
    request: Request[Any, Any, Any], key: str | None, answer: Callable[[T], KeptResponse]
) -> IdempotentRequest[T] | None:
    """Return what is needed to do a request once, if it carries a key; for routes that `recall`."""
    if key is None:
        return None
    digest, fingerprints = request.scope["state"][KEYED]
    return IdempotentRequest(digest, fingerprints, answer)


class StoredResponse(TypedDict):
    """What is kept of a response; the names are those of the columns that it is stored in."""

    status: int
    body: bytes
    location: str | None


def make_answer(status: int, body: object, location: str | None = None) -> StoredResponse:
    """Put a response together as the framework does, to be sent now and again later."""
    encoded = b"" if body is None else encode_json(body)
    return StoredResponse(status=status, body=encoded, location=location)


def repeat(_: Request[Any, Any, Any], error: AnsweredBefore) -> Response[bytes]:
    """Give the answer of the first time."""
    answer = cast("StoredResponse", error.answer)
    headers = {"Location": answer["location"]} if answer["location"] else {}
    return Response(
        answer["body"],
        status_code=answer["status"],
        media_type=MediaType.JSON if answer["body"] else MediaType.TEXT,
        headers=headers,
    )
