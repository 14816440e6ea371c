"""A client for third parties with a time limit, a rate budget and a circuit breaker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Generic, TypeVar

import structlog

from referral.adapters.observability.samples import Sample
from referral.adapters.third_parties.http_response import (
    HttpResponse,
    InvalidResponse,
    StillRunning,
)
from referral.core.entities.rate_limits import Rate, RateLimitGroup
from referral.core.errors import Unavailable
from referral.core.ports.caching import RateLimiter

T = TypeVar("T")
SendRequest = Callable[[str, float], Awaitable[HttpResponse]]
TakePermit = Callable[[], Awaitable[bool]]

FAILURE_THRESHOLD = 3
"""The number of successive failures that opens the breaker."""

PROBE_INTERVAL_SECONDS = 5.0
"""The interval between probes while the breaker is open."""

RATE_BUDGET = {
    RateLimitGroup.THIRD_PARTY_BURST: Rate(5, timedelta(seconds=1)),
    RateLimitGroup.THIRD_PARTY_PACE: Rate(27, timedelta(seconds=6)),
}
"""EmailHunter allows 10 requests a second and 300 a minute.

Windows begin at any time: a second overlaps at most two windows of the first rate (10 requests), a
minute at most eleven of the second (297 requests).
"""


class Breaker:
    """A circuit breaker: successive failures open it, a successful probe closes it."""

    def __init__(self, service: str, now: Callable[[], float] = time.monotonic) -> None:
        """`service` is the name in the log."""
        self._service = service
        self._now = now
        self._failures = 0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests are to fail at once."""
        return self._failures >= FAILURE_THRESHOLD

    def acquire_probe(self) -> bool:
        """Return whether a probe is due, and reserve it for the caller."""
        is_due = self._now() >= self._probe_at
        if is_due:
            self._probe_at = self._now() + PROBE_INTERVAL_SECONDS
        return is_due

    def record_success(self) -> None:
        """Close the breaker."""
        if self.is_open:
            structlog.get_logger().info("service answers again", service=self._service)
        self._failures = 0

    def record_failure(self, cause: str) -> None:
        """Count a failure, which may open the breaker."""
        was_open = self.is_open
        self._failures += 1
        if self.is_open and not was_open:
            self._probe_at = self._now() + PROBE_INTERVAL_SECONDS
            structlog.get_logger().warning(
                "service does not answer", service=self._service, cause=cause
            )


class GuardedClient(Generic[T]):
    """Sends one kind of request about e-mail addresses.

    Each time limit has its own breaker: a service that is too slow for a registration may be fast
    enough for a job. While a breaker is open, requests fail at once, and some are sent in the
    background as probes.
    """

    def __init__(
        self,
        service: str,
        send: SendRequest,
        parse: Callable[[HttpResponse], T],
        take_permit: TakePermit,
    ) -> None:
        """`service` is a name for the log; `parse` raises `StillRunning` or `InvalidResponse`."""
        self._service = service
        self._send = send
        self._parse = parse
        self._take_permit = take_permit
        self._breakers: dict[timedelta, Breaker] = {}
        self._probes: set[asyncio.Task[None]] = set()

    async def request(self, email: str, time_limit: timedelta) -> T:
        """Return the parsed response, or raise `Unavailable`."""
        breaker = self._breakers.setdefault(time_limit, Breaker(self._service))
        if not breaker.is_open:
            return await self._send_guarded(breaker, email, time_limit)
        if breaker.acquire_probe():
            probe = asyncio.create_task(self._probe(breaker, email, time_limit))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        raise Unavailable(f"{self._service} does not answer")

    def samples(self) -> Iterator[Sample]:
        """Return whether one of the breakers is open."""
        is_open = any(breaker.is_open for breaker in self._breakers.values())
        yield Sample("referral_breaker_open", (self._service,), is_open)

    async def close(self) -> None:
        """Cancel the probes."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    async def _probe(self, breaker: Breaker, email: str, time_limit: timedelta) -> None:
        with suppress(Unavailable):
            await self._send_guarded(breaker, email, time_limit)

    async def _send_guarded(self, breaker: Breaker, email: str, time_limit: timedelta) -> T:
        timeout_seconds = time_limit.total_seconds()
        try:
            async with asyncio.timeout(timeout_seconds):
                if not await self._take_permit():
                    raise Unavailable(f"the rate budget of {self._service} is used up")
                result = self._parse(await self._send(email, timeout_seconds))
        except StillRunning as error:
            breaker.record_success()
            raise Unavailable(f"{self._service} has no result yet") from error
        except (InvalidResponse, TimeoutError) as error:
            cause = str(error) or "TimeoutError"
        else:
            breaker.record_success()
            return result
        breaker.record_failure(cause)
        raise Unavailable(f"{self._service}: {cause}")


def rate_budget(limits: RateLimiter, service: str) -> TakePermit:
    """Return a function that takes a permit from a service's budget, or returns False."""

    async def take_permit() -> bool:
        for group in RATE_BUDGET:
            result = await limits.hit(group, service)
            if result is not None and not result.allowed:
                return False
        return True

    return take_permit
