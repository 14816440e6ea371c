"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header)."""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Any, TypeVar
from uuid import UUID

from litestar import MediaType, Request, Response
from litestar.params import HeaderParameter
from litestar.serialization import encode_json

from referral.core.attempts import AnsweredBefore
from referral.core.model import Answer, Attempt
from referral.core.ports import Fingerprints
from referral.web.problems import Fault, Misfit

T = TypeVar("T")

SHAPE = re.compile(r"[!-~]{1,255}")

NOBODY = "nobody"
"""Whose the keys are of those who are not signed in, and cannot be told apart."""

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="Made up by you, best a UUID: the same request with the same key is done once.",
        schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    ),
]


async def read_attempt(
    request: Request[Any, Any, Any],
    fingerprints: Fingerprints,
    key: str | None,
    caller: UUID | None,
    answer: Callable[[T], Answer],
) -> Attempt[T] | None:
    """Return what is needed to do a request once, if it carries a key."""
    if key is None:
        return None
    if not SHAPE.fullmatch(key):
        detail = "Send 1 to 255 visible ASCII characters."
        raise Misfit(Fault(detail, parameter="Idempotency-Key"))
    owned = f"{caller or NOBODY}\n{key}"
    what = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return Attempt(sha256(owned.encode()).digest(), fingerprints.of(what), answer)


def make_answer(status: int, body: object, location: str | None = None) -> Answer:
    """Put an answer together as the framework does, to be given now and again later."""
    return Answer(status, encode_json(body) if body is not None else b"", location)


def repeat(_: Request[Any, Any, Any], error: AnsweredBefore) -> Response[bytes]:
    """Give the answer of the first time."""
    answer = error.answer
    headers = {"Location": answer.location} if answer.location else {}
    return Response(
        answer.body,
        status_code=answer.status,
        media_type=MediaType.JSON if answer.body else MediaType.TEXT,
        headers=headers,
    )
