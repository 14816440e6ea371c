"""Changes of the signing keys, which operators make in files."""

from dataclasses import dataclass
from datetime import timedelta

from referral.core.entities.audit import SERVICE, AuditAction
from referral.core.policies.audit_recording import RecordAudit
from referral.core.ports.repositories import Database
from referral.core.ports.security import AccessTokenIssuer
from referral.core.ports.system import Clock

REMOVED_AFTER = timedelta(minutes=10)
"""How long no process may use a key that counts as removed. Processes re-read the files at
different times, and each reports its keys once a minute.
"""


@dataclass(frozen=True, slots=True)
class RecordKeyChanges:
    """Record in the audit log which signing keys are new, and which no process uses any more."""

    access_token_issuer: AccessTokenIssuer
    clock: Clock
    database: Database
    record_audit: RecordAudit

    async def __call__(self) -> bool:
        """Report the keys of this process; return whether a record was added."""
        now, keys = self.clock.now(), self.access_token_issuer.jwks()["keys"]
        async with self.database.begin() as repositories:
            registry = repositories.signing_keys
            added = await registry.report(sorted(key["kid"] for key in keys), now)
            removed = await registry.remove_unused(now - REMOVED_AFTER)
            for action, key_ids in (
                (AuditAction.SIGNING_KEY_ADDED, added),
                (AuditAction.SIGNING_KEY_REMOVED, removed),
            ):
                for key_id in key_ids:
                    await self.record_audit(repositories, SERVICE, action, key_id)
        return bool(added or removed)
