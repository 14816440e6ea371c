"""A user's own referral codes.

Use cases that make a code active lock its owner (`users.lock`) and retire a spent code first.
A database constraint, not a check here, ensures that at most one code is enabled.

The status of a code depends on the time, so use cases return the time of the read with the code.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.codes import Code, CodeStatus, Expiry
from referral.core.entities.events import EventType, code_event
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.page import Page
from referral.core.entities.users import User
from referral.core.errors import CodeTaken, NoActiveCode, NotFound, Unauthenticated
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import lock_account
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock, CodeGenerator, IdGenerator

MAX_GENERATION_TRIES = 5
"""How many texts are generated until one is free."""


@dataclass(frozen=True, slots=True)
class NewCode:
    """The data of a new code; without `text`, a text is generated."""

    expiry: Expiry
    text: str | None = None
    max_uses: int | None = None
    activate: bool = True
    replace: bool = False


@dataclass(frozen=True, slots=True)
class IssueCode:
    """Create a code."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    code_generator: CodeGenerator
    database: Database
    id_generator: IdGenerator
    record_events: RecordEvents

    async def __call__(
        self,
        user_id: UUID,
        new_code: NewCode,
        idempotent_request: IdempotentRequest[Code] | None = None,
    ) -> Code:
        """Return the code; raises `InvalidRequest`, `ActiveCodeExists` or `CodeTaken`."""
        for _ in range(MAX_GENERATION_TRIES):
            try:
                return await self._store(user_id, new_code, idempotent_request)
            except CodeTaken:
                if new_code.text is not None:
                    raise
        raise CodeTaken

    def _make_code(self, user_id: UUID, new_code: NewCode) -> Code:
        now = self.clock.now()
        return Code(
            id=self.id_generator.new(),
            user_id=user_id,
            text=self.code_generator.new() if new_code.text is None else new_code.text,
            created_at=now,
            expires_at=new_code.expiry.resolve(now),
            max_uses=new_code.max_uses,
            uses=0,
            enabled=new_code.activate,
        ).validated()

    async def _store(
        self, user_id: UUID, new_code: NewCode, idempotent_request: IdempotentRequest[Code] | None
    ) -> Code:
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            owner = await lock_account(repositories, user_id)
            code = self._make_code(user_id, new_code)
            if new_code.activate:
                now = self.clock.now()
                spent_at = None if new_code.replace else now
                if other := await repositories.codes.retire(user_id, only_spent_at=spent_at):
                    await self.record_events.retirement(repositories, other, now)
            created = code_event(EventType.CODE_CREATED, code, code.created_at)
            await self.record_events(repositories, created)
            await repositories.codes.add(code)
            await save_idempotent_response(
                repositories, self.clock, idempotent_request, code, user_id
            )
        if new_code.activate:
            await self.invalidate_lookup(owner)
        return code


@dataclass(frozen=True, slots=True)
class ListCodes:
    """List a user's codes, newest first."""

    clock: Clock
    database: Database

    async def __call__(
        self, user_id: UUID, *, status: CodeStatus | None, after: UUID | None, limit: int
    ) -> tuple[Page[Code], datetime]:
        """Return a page, and the time of its statuses."""
        now = self.clock.now()
        async with self.database.read() as repositories:
            rows = await repositories.codes.list_page(
                user_id, now, status=status, after=after, limit=limit + 1
            )
            if not rows and await repositories.users.find(user_id) is None:
                raise Unauthenticated
        return Page.from_rows(rows, limit, lambda code: code.id), now


@dataclass(frozen=True, slots=True)
class ShowCode:
    """Return one code of a user."""

    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID, code_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the time of its status, or raise `NotFound`."""
        async with self.database.read() as repositories:
            code = await repositories.codes.find(user_id, code_id)
        if code is None:
            raise NotFound
        return code, self.clock.now()


@dataclass(frozen=True, slots=True)
class ShowActiveCode:
    """Return a user's active code."""

    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the time of its status, or raise `NoActiveCode`."""
        now = self.clock.now()
        async with self.database.read() as repositories:
            code = await repositories.codes.find_active(user_id, now)
        if code is None:
            raise NoActiveCode
        return code, now


@dataclass(frozen=True, slots=True)
class CodeRenewal:
    """The changes of a renewal; `unlimited` removes `max_uses`."""

    expiry: Expiry | None = None
    max_uses: int | None = None
    unlimited: bool = False

    def applied_to(self, code: Code, now: datetime) -> Code:
        """Return the renewed code, or raise `InvalidRequest`."""
        max_uses = code.max_uses if self.max_uses is None else self.max_uses
        return replace(
            code,
            expires_at=self.expiry.resolve(now) if self.expiry else code.expires_at,
            max_uses=None if self.unlimited else max_uses,
        ).validated()


@dataclass(frozen=True, slots=True)
class RenewCode:
    """Change the expiry or `max_uses` of a code."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database
    record_events: RecordEvents

    async def __call__(
        self, user_id: UUID, code_id: UUID, renewal: CodeRenewal
    ) -> tuple[Code, datetime]:
        """Return the code and the time of its status; raises `InvalidRequest` or `NotFound`."""
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            now = self.clock.now()
            renewed = renewal.applied_to(code, now)
            if renewed != code:
                await self._save(repositories, code, renewed, now)
        await self.invalidate_lookup(owner)
        return renewed, now

    async def _save(
        self, repositories: Repositories, code: Code, renewed: Code, now: datetime
    ) -> None:
        await self.record_events.expiry(repositories, code, now)
        await self.record_events(repositories, code_event(EventType.CODE_RENEWED, renewed, now))
        if code.is_active(now) and renewed.is_exhausted:
            exhausted = code_event(EventType.CODE_EXHAUSTED, renewed, now)
            await self.record_events(repositories, exhausted)
        await repositories.codes.save(renewed)


@dataclass(frozen=True, slots=True)
class ActivateCode:
    """Activate a code, and deactivate the user's other one."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database
    record_events: RecordEvents

    async def __call__(self, user_id: UUID, code_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the time of its status.

        Raises `NotFound`, `CodeExpired` or `CodeExhausted`.
        """
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            now = self.clock.now()
            active = code.activated(now)
            if not code.enabled:
                await self._save(repositories, active, now)
        await self.invalidate_lookup(owner)
        return active, now

    async def _save(self, repositories: Repositories, active: Code, now: datetime) -> None:
        if other := await repositories.codes.retire(active.user_id):
            await self.record_events.retirement(repositories, other, now)
        await self.record_events(repositories, code_event(EventType.CODE_ACTIVATED, active, now))
        await repositories.codes.save(active)


@dataclass(frozen=True, slots=True)
class DeactivateCode:
    """Deactivate a code until it is activated again."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database
    record_events: RecordEvents

    async def __call__(self, user_id: UUID, code_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the time of its status, or raise `NotFound`."""
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            now, inactive = self.clock.now(), code.deactivated()
            if code.enabled:
                await self.record_events.deactivation(repositories, code, now)
                await repositories.codes.save(inactive)
        await self.invalidate_lookup(owner)
        return inactive, now


@dataclass(frozen=True, slots=True)
class DeleteCode:
    """Delete a code; its text is never reused."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database
    record_events: RecordEvents

    async def __call__(self, user_id: UUID, code_id: UUID) -> None:
        """Delete the code, or raise `NotFound`."""
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            now = self.clock.now()
            await self.record_events.expiry(repositories, code, now)
            deleted = code_event(EventType.CODE_DELETED, code.deactivated(), now)
            await self.record_events(repositories, deleted)
            await repositories.codes.delete(code.id, now)
        await self.invalidate_lookup(owner)


async def _lock(repositories: Repositories, user_id: UUID, code_id: UUID) -> tuple[User, Code]:
    owner = await lock_account(repositories, user_id)
    code = await repositories.codes.lock(user_id, code_id)
    if code is None:
        raise NotFound
    return owner, code
