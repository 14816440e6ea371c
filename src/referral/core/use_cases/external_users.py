"""Users of another service, which creates and changes them by its own ids."""

from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.account_view import UserDetails
from referral.core.entities.audit import AuditAction
from referral.core.entities.clients import Caller
from referral.core.entities.external_ids import validate_external_id
from referral.core.entities.users import EmailAddress, Locale, User
from referral.core.errors import EmailTaken, ExternalIdTaken
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.authorization import check_may_manage
from referral.core.policies.email_confirmation import MarkEmailConfirmed
from referral.core.policies.email_deliverability import VerifyEmailAtSignup
from referral.core.policies.external_accounts import ChangeEmail, CreateExternalAccount
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, Repositories

MAX_PUT_TRIES = 3
"""A creation is tried again, as a change, if a concurrent request has created the user."""


@dataclass(frozen=True, slots=True)
class ExternalUserData:
    """What a service tells about its user.

    `email_verified` vouches for the address; False takes nothing back. `locale` is None to keep
    it. `referral_code` counts for a new user only.
    """

    email: str
    email_verified: bool = False
    locale: Locale | None = None
    referral_code: str | None = None


@dataclass(frozen=True, slots=True)
class PutExternalUser:
    """Create the user with an external id, or change what the request names."""

    change_email: ChangeEmail
    create_account: CreateExternalAccount
    database: Database
    email_parser: EmailParser
    invalidate_lookup: InvalidateLookup
    mark_email_confirmed: MarkEmailConfirmed
    record_audit: RecordAudit
    verify_at_signup: VerifyEmailAtSignup

    async def __call__(
        self, caller: Caller, external_id: str, data: ExternalUserData
    ) -> tuple[UserDetails, bool]:
        """Return the user, and whether it is new.

        Raises `InvalidRequest`, `EmailTaken`, `EmailUndeliverable` or `ReferralCodeUnusable`, and
        without the scope `admin` `InsufficientScope` for an admin, `AccountBlocked` for a blocked
        user.
        """
        validate_external_id(external_id)
        email = self.email_parser.parse(data.email)
        for _ in range(MAX_PUT_TRIES):
            known = await self._find(external_id)
            try:
                user_id = await self._put(caller, known, external_id, email, data)
            except (EmailTaken, ExternalIdTaken):
                if known is not None or await self._find(external_id) is None:
                    raise
                continue
            details = user_id and await self._details(user_id)
            if details:
                return details, known is None
        raise ExternalIdTaken

    async def _put(
        self,
        caller: Caller,
        known: User | None,
        external_id: str,
        email: EmailAddress,
        data: ExternalUserData,
    ) -> UUID | None:
        """Return the id of the user, or None if it was erased meanwhile."""
        draft = self.create_account.draft(
            external_id, email, vouched=data.email_verified, locale=data.locale or Locale.EN
        )
        has_address = known is not None and known.email_key == email.email_key
        if not (data.email_verified or has_address):
            draft = await self.verify_at_signup(draft)
        async with self.database.begin() as repositories:
            if known is None:
                owners = await self.create_account(
                    repositories, draft, caller.actor, data.referral_code
                )
                user_id = draft.id
            else:
                user = await repositories.users.lock(known.id)
                if user is None:
                    return None
                owners = await self._change(repositories, caller, user, draft, data)
                user_id = user.id
        await self.invalidate_lookup(*owners)
        return user_id

    async def _change(
        self,
        repositories: Repositories,
        caller: Caller,
        user: User,
        draft: User,
        data: ExternalUserData,
    ) -> list[User]:
        changed = replace(user, email=draft.email, locale=data.locale or user.locale)
        confirms = data.email_verified and not user.email_verified
        if changed == user and not confirms and user.email_key == draft.email_key:
            return []
        check_may_manage(caller, user)
        await self.record_audit(repositories, caller.actor, AuditAction.USER_CHANGED, user.id)
        if changed.email_key == draft.email_key:
            await repositories.users.save(changed)
            if confirms:
                return await self.mark_email_confirmed(repositories, changed)
            return []
        changed = replace(
            changed,
            email_key=draft.email_key,
            email_verified=draft.email_verified,
            deliverability=draft.deliverability,
        )
        return await self.change_email(repositories, user, changed, caller.actor)

    async def _find(self, external_id: str) -> User | None:
        async with self.database.read() as repositories:
            return await repositories.users.find_by_external_id(external_id)

    async def _details(self, user_id: UUID) -> UserDetails | None:
        async with self.database.read() as repositories:
            return await repositories.user_directory.find(user_id)
