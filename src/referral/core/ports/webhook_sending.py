"""Requests to the receivers of webhooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A POST of a JSON body."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ReceiverResponse:
    """The response of a receiver.

    `status` is None if there was no response. `error` says in words why the attempt failed, and is
    None if it succeeded. `body` is the beginning of the response of a failed attempt.
    `retry_after` is the delay that a response 429 or 503 demands.
    """

    status: int | None = None
    error: str | None = None
    body: str | None = None
    retry_after: timedelta | None = None


class WebhookSender(Protocol):
    """Sends requests to receivers, in bounded time and memory, whatever a receiver does."""

    async def send(self, request: WebhookRequest) -> ReceiverResponse:
        """Send a request. Never raises for what the receiver or its network does.

        Redirects are not followed, and only allowed networks are connected to.
        """
        ...
