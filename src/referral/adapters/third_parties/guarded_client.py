"""Questions to a third party: within its budget, and without waiting for one that is gone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Generic, TypeVar

import structlog

from referral.adapters.observability.samples import Sample
from referral.adapters.third_parties.http_response import HttpResponse, InvalidResponse
from referral.core.entities.rate_limits import Rate, RateLimitGroup
from referral.core.errors import Unavailable
from referral.core.ports.caching import RateLimiter

T = TypeVar("T")
SendRequest = Callable[[str, float], Awaitable[HttpResponse]]
TakePermit = Callable[[], Awaitable[bool]]

FAILURE_THRESHOLD = 3
"""After how many failures in a row nobody waits any more."""

PROBE_INTERVAL_SECONDS = 5.0
"""How often it is then tried whether there are answers again, in seconds."""

RATE_BUDGET = {
    RateLimitGroup.THIRD_PARTY_BURST: Rate(5, timedelta(seconds=1)),
    RateLimitGroup.THIRD_PARTY_PACE: Rate(27, timedelta(seconds=6)),
}
"""Windows that begin when they like: any second touches two of the first, and any minute eleven of
the second, which makes 10 a second and 297 a minute at most.
"""


class Breaker:
    """Open after some failures in a row, until a probe is answered."""

    def __init__(self, service: str, now: Callable[[], float] = time.monotonic) -> None:
        """Take a name for the log."""
        self._service = service
        self._now = now
        self._failures = 0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether nobody should wait."""
        return self._failures >= FAILURE_THRESHOLD

    def acquire_probe(self) -> bool:
        """Tell whether it is time to try, and that somebody does."""
        is_due = self._now() >= self._probe_at
        if is_due:
            self._probe_at = self._now() + PROBE_INTERVAL_SECONDS
        return is_due

    def record_success(self) -> None:
        """Note an answer."""
        if self.is_open:
            structlog.get_logger().info("service answers again", service=self._service)
        self._failures = 0

    def record_failure(self, cause: str) -> None:
        """Note that there was none."""
        was_open = self.is_open
        self._failures += 1
        if self.is_open and not was_open:
            self._probe_at = self._now() + PROBE_INTERVAL_SECONDS
            log = structlog.get_logger()
            log.warning("service does not answer", service=self._service, cause=cause)


class GuardedClient(Generic[T]):
    """Questions of one kind about mailboxes.

    Each patience has a breaker of its own: a service that is too slow for a registration may still
    do for a job. While one is open, nobody waits: now and then a question is put in the background.
    """

    def __init__(
        self,
        service: str,
        send: SendRequest,
        parse: Callable[[HttpResponse], T],
        take_permit: TakePermit,
    ) -> None:
        """Take the request, the parser of its response (or `InvalidResponse`), and the budget."""
        self._service = service
        self._send = send
        self._parse = parse
        self._take_permit = take_permit
        self._breakers: dict[timedelta, Breaker] = {}
        self._probes: set[asyncio.Task[None]] = set()

    async def request(self, email: str, time_limit: timedelta) -> T:
        """Return the answer, or raise `Unavailable`."""
        breaker = self._breakers.setdefault(time_limit, Breaker(self._service))
        if not breaker.is_open:
            return await self._send_guarded(breaker, email, time_limit)
        if breaker.acquire_probe():
            probe = asyncio.create_task(self._probe(breaker, email, time_limit))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        raise Unavailable(f"{self._service} does not answer")

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        is_open = any(breaker.is_open for breaker in self._breakers.values())
        yield Sample("referral_breaker_open", (self._service,), is_open)

    async def close(self) -> None:
        """Give up the questions that nobody waits for."""
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
                    raise Unavailable(f"{self._service} has been asked enough for now")
                result = self._parse(await self._send(email, timeout_seconds))
        except (InvalidResponse, TimeoutError) as error:
            cause = str(error) or "TimeoutError"
        else:
            breaker.record_success()
            return result
        breaker.record_failure(cause)
        raise Unavailable(f"{self._service}: {cause}")


def rate_budget(limits: RateLimiter, service: str) -> TakePermit:
    """Return what takes a place in the budget of a service, and tells whether there was one."""

    async def take() -> bool:
        for group in RATE_BUDGET:
            result = await limits.hit(group, service)
            if result is not None and not result.allowed:
                return False
        return True

    return take
