"""A cache of the responses to lookups by query, which landing pages repeat often."""

from typing import NamedTuple

from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.use_cases.lookups import LookUpCode
from referral.web.permissions import check_lookup_access
from referral.web.rate_limits import count_by_ip

MAX_RESPONSES = 1_000
MAX_QUERY_BYTES = 400
"""Responses to longer queries are not cached, so the cache takes 2 MB at most."""

LOOKUP_RESULT_KEY = "found"
"""The key in a request's state under which the handler stores the e-mail and the code found."""


class CachedResponse(NamedTuple):
    """The messages of a response, valid while the lookup cache maps `email` to `code`."""

    email: str
    code: Code
    messages: tuple[Message, ...]


class LookupResponseCache:
    """Sends the same response to a repeated query, as long as this process caches the same code."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the app."""
        self._app = app
        self._responses: dict[bytes, CachedResponse] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the cached response, or call the app and cache its response."""
        # Not guards: Litestar copies the handler for each guard, which costs more than the checks.
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

        async def send_recording(message: Message) -> None:
            messages.append(_copy(message))
            await send(message)

        await self._app(scope, receive, send_recording)
        result = scope["state"].get(LOOKUP_RESULT_KEY)
        if result is not None and len(query) <= MAX_QUERY_BYTES:
            email, code = result
            self._save(query, CachedResponse(email, code, tuple(messages)))

    def _save(self, query: bytes, response: CachedResponse) -> None:
        self._responses.pop(query, None)
        if len(self._responses) >= MAX_RESPONSES:
            del self._responses[next(iter(self._responses))]
        self._responses[query] = response


def _copy(message: Message) -> Message:
    """Copy a message and its headers: outer middleware adds headers of one request to them."""
    if message["type"] == "http.response.start":
        return {**message, "headers": list(message["headers"])}
    return message.copy()
