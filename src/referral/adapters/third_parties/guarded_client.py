"""Questions to a third party: within its budget, and without waiting for one that is gone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Generic, TypeVar

import structlog

from referral.adapters.observability.samples import Sample
from referral.adapters.third_parties.http_response import InvalidResponse, Reply
from referral.core.entities.limits import LimitGroup, Rate
from referral.core.errors import Unavailable
from referral.core.ports.caching import Limits

T = TypeVar("T")
Send = Callable[[str, float], Awaitable[Reply]]
Take = Callable[[], Awaitable[bool]]

FAILURES = 3
"""After how many failures in a row nobody waits any more."""

RETRY_SECONDS = 5.0
"""How often it is then tried whether there are answers again, in seconds."""

BUDGET = {
    LimitGroup.THIRD_PARTY_BURST: Rate(5, timedelta(seconds=1)),
    LimitGroup.THIRD_PARTY_PACE: Rate(27, timedelta(seconds=6)),
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
        return self._failures >= FAILURES

    def take_probe(self) -> bool:
        """Tell whether it is time to try, and that somebody does."""
        due = self._now() >= self._probe_at
        if due:
            self._probe_at = self._now() + RETRY_SECONDS
        return due

    def succeed(self) -> None:
        """Note an answer."""
        if self.is_open:
            structlog.get_logger().info("service answers again", service=self._service)
        self._failures = 0

    def fail(self, fault: str) -> None:
        """Note that there was none."""
        was_open = self.is_open
        self._failures += 1
        if self.is_open and not was_open:
            self._probe_at = self._now() + RETRY_SECONDS
            log = structlog.get_logger()
            log.warning("service does not answer", service=self._service, cause=fault)


class GuardedClient(Generic[T]):
    """Questions of one kind about mailboxes.

    Each patience has a breaker of its own: a service that is too slow for a registration may still
    do for a job. While one is open, nobody waits: now and then a question is put in the background.
    """

    def __init__(
        self,
        service: str,
        send: Send,
        read: Callable[[Reply], T],
        take: Take,
    ) -> None:
        """Take the request, the parser of its response (or `InvalidResponse`), and the budget."""
        self._service = service
        self._send = send
        self._read = read
        self._take = take
        self._breakers: dict[timedelta, Breaker] = {}
        self._probes: set[asyncio.Task[None]] = set()

    async def ask(self, mailbox: str, within: timedelta) -> T:
        """Return the answer, or raise `Unavailable`."""
        breaker = self._breakers.setdefault(within, Breaker(self._service))
        if not breaker.is_open:
            return await self._put(breaker, mailbox, within)
        if breaker.take_probe():
            probe = asyncio.create_task(self._probe(breaker, mailbox, within))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        raise Unavailable(f"{self._service} does not answer")

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        is_open = any(breaker.is_open for breaker in self._breakers.values())
        yield Sample("referral_breaker_open", (self._service,), is_open)

    async def close(self) -> None:
        """Give up the questions that nobody waits for."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    async def _probe(self, breaker: Breaker, mailbox: str, within: timedelta) -> None:
        with suppress(Unavailable):
            await self._put(breaker, mailbox, within)

    async def _put(self, breaker: Breaker, mailbox: str, within: timedelta) -> T:
        seconds = within.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                if not await self._take():
                    raise Unavailable(f"{self._service} has been asked enough for now")
                answer = self._read(await self._send(mailbox, seconds))
        except (InvalidResponse, TimeoutError) as error:
            fault = str(error) or "TimeoutError"
        else:
            breaker.succeed()
            return answer
        breaker.fail(fault)
        raise Unavailable(f"{self._service}: {fault}")


def taking(limits: Limits, service: str) -> Take:
    """Return what takes a place in the budget of a service, and tells whether there was one."""

    async def take() -> bool:
        for group in BUDGET:
            allowance = await limits.take(group, service)
            if allowance is not None and not allowance.granted:
                return False
        return True

    return take
