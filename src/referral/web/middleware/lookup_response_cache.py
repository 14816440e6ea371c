"""The look-up that a landing page asks again and again, answered without working it out anew."""

from typing import NamedTuple

from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.use_cases.lookups import LookUpCode
from referral.web.auth import check_lookup_access
from referral.web.rate_limits import count_by_ip

MAX_RESPONSES = 1_000
MAX_QUERY_BYTES = 400
"""A process keeps the answers to so many queries of so many bytes: at most 2 MB."""

LOOKUP_RESULT_KEY = "found"
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
        self._responses: dict[bytes, CachedResponse] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, or have it worked out and keep it."""
        # No guards: for each of them Litestar copies the handler, which costs more than they do.
        await count_by_ip(scope, RateLimitGroup.LOOKUP)
        state = scope["litestar_app"].state
        if not state.public_lookups:
            await check_lookup_access(ASGIConnection(scope), None)
        query = scope["query_string"]
        look_up: LookUpCode = state.look_up
        response = self._responses.get(query)
        if response is None or not look_up.is_cached(response.email, response.code):
            await self._call_and_save(query, scope, receive, send)
        else:
            for message in response.messages:
                await send(_copy(message))

    async def _call_and_save(
        self, query: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        messages: list[Message] = []

        async def send_noting(message: Message) -> None:
            messages.append(_copy(message))
            await send(message)

        await self._app(scope, receive, send_noting)
        found = scope["state"].get(LOOKUP_RESULT_KEY)
        if found is not None and len(query) <= MAX_QUERY_BYTES:
            email, code = found
            self._save(query, CachedResponse(email, code, tuple(messages)))

    def _save(self, query: bytes, response: CachedResponse) -> None:
        self._responses.pop(query, None)
        if len(self._responses) >= MAX_RESPONSES:
            del self._responses[next(iter(self._responses))]
        self._responses[query] = response


def _copy(message: Message) -> Message:
    """Copy it with its headers, to which those outside add what is for one caller alone."""
    if message["type"] == "http.response.start":
        return {**message, "headers": list(message["headers"])}
    return message.copy()
