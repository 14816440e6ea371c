"""The look-up that a landing page asks again and again, answered without working it out anew."""

from typing import NamedTuple

from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from referral.core.entities.codes import Code
from referral.core.entities.limits import LimitGroup
from referral.core.use_cases.lookups import LookUpCode
from referral.web.auth import check_lookup_access
from referral.web.rate_limits import count_address

ANSWERS = 1_000
MAX_QUERY = 400
"""A process keeps the answers to so many queries of so many bytes: at most 2 MB."""

FOUND = "found"
"""Where in a request's state the handler leaves what it found, and for which address."""


class CachedResponse(NamedTuple):
    """The messages of an answer, and what has to hold for it to be given again."""

    email: str
    code: Code
    messages: tuple[Message, ...]


class LookupResponseCache:
    """A middleware of the look-up by query: one that was asked before, in the same bytes, is told
    the same for as long as the process remembers the same code.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Take the app inside."""
        self._app = app
        self._answers: dict[bytes, CachedResponse] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, or have it worked out and keep it."""
        # No guards: for each of them Litestar copies the handler, which costs more than they do.
        await count_address(scope, LimitGroup.LOOKUP)
        state = scope["litestar_app"].state
        if not state.public_lookups:
            await check_lookup_access(ASGIConnection(scope), None)
        query = scope["query_string"]
        look_up: LookUpCode = state.look_up
        answer = self._answers.get(query)
        if answer is None or not look_up.recalls(answer.email, answer.code):
            await self._work_out(query, scope, receive, send)
        else:
            for message in answer.messages:
                await send(_copy(message))

    async def _work_out(self, query: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def send_noting(message: Message) -> None:
            messages.append(_copy(message))
            await send(message)

        await self._app(scope, receive, send_noting)
        found = scope["state"].get(FOUND)
        if found is not None and len(query) <= MAX_QUERY:
            email, code = found
            self._keep(query, CachedResponse(email, code, tuple(messages)))

    def _keep(self, query: bytes, answer: CachedResponse) -> None:
        self._answers.pop(query, None)
        if len(self._answers) >= ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[query] = answer


def _copy(message: Message) -> Message:
    """Copy it with its headers, to which those outside add what is for one caller alone."""
    if message["type"] == "http.response.start":
        return {**message, "headers": list(message["headers"])}
    return message.copy()
