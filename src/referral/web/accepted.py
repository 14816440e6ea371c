"""What the routes share that queue a mail: the answer, given before the mail goes out."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from litestar import MediaType, Request, Response
from litestar.openapi.datastructures import ResponseSpec

from referral.core.entities.idempotency import IdempotentRequest
from referral.web.idempotency import StoredJsonResponse, idempotent_request, make_stored_response

Subject = TypeVar("Subject")

MAIL_ACCEPTED = {202: ResponseSpec(None, description="The mail is on its way.")}


async def respond_accepted(
    use_case: Callable[[Subject, IdempotentRequest[None] | None], Awaitable[None]],
    subject: Subject,
    request: Request[Any, Any, Any],
    key: str | None,
) -> Response[str]:
    """Have a mail queued, once for each idempotency key of the caller, and say so."""
    await use_case(subject, idempotent_request(request, key, _accepted))
    return Response("", media_type=MediaType.TEXT)


def _accepted(_: None) -> StoredJsonResponse:
    return make_stored_response(202, None)
