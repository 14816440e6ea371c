"""What the routes share that queue a mail: the answer, given before the mail goes out."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from litestar import MediaType, Request, Response
from litestar.openapi.datastructures import ResponseSpec

from referral.core.entities.idempotency import IdempotentRequest
from referral.web.idempotency import StoredResponse, attempt_of, make_answer

Whose = TypeVar("Whose")

ON_ITS_WAY = {202: ResponseSpec(None, description="The mail is on its way.")}


async def queue_mail(
    use: Callable[[Whose, IdempotentRequest[None] | None], Awaitable[None]],
    whose: Whose,
    request: Request[Any, Any, Any],
    key: str | None,
) -> Response[str]:
    """Have a mail queued, once for each idempotency key of the caller, and say so."""
    await use(whose, attempt_of(request, key, _accepted))
    return Response("", media_type=MediaType.TEXT)


def _accepted(_: None) -> StoredResponse:
    return make_answer(202, None)
