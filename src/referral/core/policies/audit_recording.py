"""Recording of changes in the audit log, in the transaction of the change."""

from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction, make_audit_record
from referral.core.ports.repositories import Repositories
from referral.core.ports.system import Clock, IdGenerator


@dataclass(frozen=True, slots=True)
class RecordAudit:
    """Add a record to the audit log. Call this before a write, which then stores it as well."""

    clock: Clock
    id_generator: IdGenerator

    async def __call__(
        self,
        repositories: Repositories,
        actor: Actor,
        action: AuditAction,
        subject: UUID | str,
        reason: str | None = None,
    ) -> None:
        """Record who did what to which subject, a validated reason included."""
        now = self.clock.now()
        random_bits = self.id_generator.new().int
        record = make_audit_record(now, random_bits, actor, action, str(subject))
        await repositories.audit.add(replace(record, reason=reason))
