"""Fakes of the clock, the generators, the security log, health probes and links."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from referral.core.errors import Unavailable


class FakeClock:
    """A clock that only `advance` moves."""

    def __init__(self) -> None:
        """Start at the current time: libraries check tokens against the real clock."""
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, **by: float) -> None:
        """Advance by the arguments of a timedelta, such as `minutes=5`."""
        self._now += timedelta(**by)


class FakeIdGenerator:
    """Sequential UUIDv7 ids."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> UUID:
        self._count += 1
        version, variant = 0x7 << 76, 0b10 << 62
        return UUID(int=self._count << 80 | version | variant | self._count)


class FakeCodeGenerator:
    """The texts in `scripted`, then sequential ones."""

    def __init__(self) -> None:
        self.scripted: list[str] = []
        self._count = 0

    def new(self) -> str:
        if self.scripted:
            return self.scripted.pop(0)
        self._count += 1
        return f"MADE{self._count:04}"


class FakeSecurityLog:
    """Records the security events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.facts: list[dict[str, str]] = []

    def warn(self, event: str, **facts: str) -> None:
        self.events.append(event)
        self.facts.append(facts)


class FakeHealthProbe:
    """A dependency that reports its status, or is unavailable without one."""

    def __init__(self, name: str, state: str | None) -> None:
        self.name = name
        self._state = state

    async def check(self) -> str:
        if self._state is None:
            raise Unavailable
        return self._state


class FakeLinkBuilder:
    """Links to a fictitious host."""

    def docs(self) -> str:
        return "http://test/docs"

    def share(self, code: str) -> str:
        return f"http://test/r/{code}"

    def unsubscribe(self, token: str) -> str:
        return f"http://test/unsubscribe/{token}"

    def confirm(self, token: str) -> str:
        return f"http://test/confirm?token={token}"

    def reset(self, token: str) -> str:
        return f"http://test/reset?token={token}"
