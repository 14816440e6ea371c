"""Recording of events in the transaction of the change."""

from dataclasses import dataclass, replace
from datetime import datetime

from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.events import Event, EventContent, EventType, code_event
from referral.core.ports.repositories import Repositories
from referral.core.ports.system import IdGenerator


@dataclass(frozen=True, slots=True)
class RecordEvents:
    """Add events to the transaction. Call this before a write, which then stores them as well."""

    id_generator: IdGenerator

    async def __call__(self, repositories: Repositories, *contents: EventContent) -> None:
        """Give each event its id, and add it."""
        await repositories.events.add(
            *(
                Event(self.id_generator.new(), content.type, content.occurred_at, content.data)
                for content in contents
            )
        )

    async def expiry(self, repositories: Repositories, code: Code, now: datetime) -> None:
        """Record that a locked, enabled code expired, unless that was reported already.

        Call this before the code is changed: nobody can tell afterwards that it was active.
        """
        if not code.enabled or code.expires_at > now:
            return
        if await repositories.codes.report_expiry(code.id) and not code.is_exhausted:
            await self(repositories, code_event(EventType.CODE_EXPIRED, code, now))

    async def deactivation(self, repositories: Repositories, code: Code, now: datetime) -> None:
        """Record that a locked, enabled code is deactivated. Call this before it is changed."""
        await self.expiry(repositories, code, now)
        await self(repositories, code_event(EventType.CODE_DEACTIVATED, code.deactivated(), now))

    async def retirement(self, repositories: Repositories, retired: Code, now: datetime) -> None:
        """Record that an enabled code was retired: deactivated if it was active, or expired."""
        before = replace(retired, enabled=True)
        await self.expiry(repositories, before, now)
        if before.status(now) is CodeStatus.ACTIVE:
            await self(repositories, code_event(EventType.CODE_DEACTIVATED, retired, now))
