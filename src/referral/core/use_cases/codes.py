"""A user's own referral codes.

Whatever makes a code active first holds the owner (`users.lock`) and retires the code that has
run out; that no two are enabled is a constraint of the database, not a check made here.

The status of a code depends on the clock, so whatever shows one also returns the instant that it
was found at; a new code is shown as it was when it was made.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.codes import Code, CodeStatus, Expiry
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.pagination import Page
from referral.core.entities.users import User
from referral.core.errors import CodeTaken, NoActiveCode, NotFound, Unauthenticated
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import lock_account
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock, CodeGenerator, IdGenerator

MAX_GENERATION_TRIES = 5
"""How often a made-up text may turn out to be taken; at 31^8 texts twice is a miracle."""


@dataclass(frozen=True, slots=True)
class NewCode:
    """What a code is made from; without `text` it gets a made-up one."""

    expiry: Expiry
    text: str | None = None
    max_uses: int | None = None
    activate: bool = True
    replace: bool = False


@dataclass(frozen=True, slots=True)
class IssueCode:
    """Give a user a new code."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    code_generator: CodeGenerator
    database: Database
    id_generator: IdGenerator

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
                spent_at = None if new_code.replace else self.clock.now()
                await repositories.codes.retire(user_id, only_spent_at=spent_at)
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
        """Return a page, and the time its statuses are for."""
        now = self.clock.now()
        async with self.database.read() as repositories:
            found = await repositories.codes.list_page(
                user_id, now, status=status, after=after, limit=limit + 1
            )
            if not found and await repositories.users.find(user_id) is None:
                raise Unauthenticated
        return Page.from_rows(found, limit, lambda code: code.id), now


@dataclass(frozen=True, slots=True)
class ShowCode:
    """Show one code of a user."""

    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID, code_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the instant it is shown at, or raise `NotFound`."""
        async with self.database.read() as repositories:
            code = await repositories.codes.find(user_id, code_id)
        if code is None:
            raise NotFound
        return code, self.clock.now()


@dataclass(frozen=True, slots=True)
class ShowActiveCode:
    """Show the code of a user that is in force."""

    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the instant it is active at, or raise `NoActiveCode`."""
        now = self.clock.now()
        async with self.database.read() as repositories:
            code = await repositories.codes.find_active(user_id, now)
        if code is None:
            raise NoActiveCode
        return code, now


@dataclass(frozen=True, slots=True)
class CodeRenewal:
    """What a renewal changes; `unlimited` takes the maximum of uses away."""

    expiry: Expiry | None = None
    max_uses: int | None = None
    unlimited: bool = False

    def applied_to(self, code: Code, now: datetime) -> Code:
        """Return the code as it is to be, or raise `InvalidRequest`."""
        max_uses = code.max_uses if self.max_uses is None else self.max_uses
        return replace(
            code,
            expires_at=self.expiry.resolve(now) if self.expiry else code.expires_at,
            max_uses=None if self.unlimited else max_uses,
        ).validated()


@dataclass(frozen=True, slots=True)
class RenewCode:
    """Give a code another end or another maximum of uses."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database

    async def __call__(
        self, user_id: UUID, code_id: UUID, renewal: CodeRenewal
    ) -> tuple[Code, datetime]:
        """Return the code and the instant it was renewed at.

        Raises `InvalidRequest` or `NotFound`.
        """
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            now = self.clock.now()
            renewed = renewal.applied_to(code, now)
            await repositories.codes.save(renewed)
        await self.invalidate_lookup(owner)
        return renewed, now


@dataclass(frozen=True, slots=True)
class ActivateCode:
    """Put a code in force, and any other of the user out of it."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID, code_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the instant it was activated at, or raise `NotFound`, `CodeExpired`
        or `CodeExhausted`.
        """
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            now = self.clock.now()
            active = code.activated(now)
            if not code.enabled:
                await repositories.codes.retire(user_id)
                await repositories.codes.save(active)
        await self.invalidate_lookup(owner)
        return active, now


@dataclass(frozen=True, slots=True)
class DeactivateCode:
    """Take a code out of force until it is activated again."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID, code_id: UUID) -> tuple[Code, datetime]:
        """Return the code and the instant it was deactivated at, or raise `NotFound`."""
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            now, inactive = self.clock.now(), code.deactivated()
            await repositories.codes.save(inactive)
        await self.invalidate_lookup(owner)
        return inactive, now


@dataclass(frozen=True, slots=True)
class DeleteCode:
    """Take a code away for good; its text is never given out again."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID, code_id: UUID) -> None:
        """Delete the code, or raise `NotFound`."""
        async with self.database.begin() as repositories:
            owner, code = await _lock(repositories, user_id, code_id)
            await repositories.codes.delete(code.id, self.clock.now())
        await self.invalidate_lookup(owner)


async def _lock(repositories: Repositories, user_id: UUID, code_id: UUID) -> tuple[User, Code]:
    owner = await lock_account(repositories, user_id)
    code = await repositories.codes.lock(user_id, code_id)
    if code is None:
        raise NotFound
    return owner, code
