"""The codes of all users, for admins."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction, validated_reason
from referral.core.entities.codes import CODE_PATTERN, Code
from referral.core.entities.page import Page
from referral.core.entities.searches import CodeFilter
from referral.core.errors import NotFound
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class ListAllCodes:
    """List the codes of all users, newest first."""

    clock: Clock
    database: Database

    async def __call__(
        self, wanted: CodeFilter, *, after: UUID | None, limit: int
    ) -> tuple[Page[Code], datetime]:
        """Return a page, and the time of its statuses."""
        now = self.clock.now()
        if wanted.code is not None and not CODE_PATTERN.fullmatch(wanted.code):
            return Page([], None), now
        async with self.database.read() as repositories:
            rows = await repositories.code_search.list_page(
                wanted, now, after=after, limit=limit + 1
            )
        return Page.from_rows(rows, limit, lambda code: code.id), now


@dataclass(frozen=True, slots=True)
class DeactivateAnyCode:
    """Deactivate a code of any user, who may activate it again unless blocked."""

    clock: Clock
    database: Database
    invalidate_lookup: InvalidateLookup
    record_audit: RecordAudit
    record_events: RecordEvents

    async def __call__(self, code_id: UUID, actor: Actor, reason: str) -> tuple[Code, datetime]:
        """Return the code and the time of its status; raises `InvalidRequest` or `NotFound`."""
        reason = validated_reason(reason)
        async with self.database.begin() as repositories:
            found = await repositories.code_search.find(code_id)
            owner = found and await repositories.users.lock(found.user_id)
            code = owner and await repositories.codes.lock(owner.id, code_id)
            if not owner or not code:
                raise NotFound
            now, inactive = self.clock.now(), code.deactivated()
            if code.enabled:
                action = AuditAction.CODE_DEACTIVATED
                await self.record_audit(repositories, actor, action, code_id, reason)
                await self.record_events.deactivation(repositories, code, now)
                await repositories.codes.save(inactive)
        await self.invalidate_lookup(owner)
        return inactive, now
