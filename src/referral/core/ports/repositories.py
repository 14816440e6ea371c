"""What is stored: repositories, transactions and the most frequent reads."""

from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from referral.core.entities.account_view import AccountView
from referral.core.entities.clients import Client
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.idempotency import IdempotentRequest, StoredResponse
from referral.core.entities.jobs import Job
from referral.core.entities.referrals import Referral, ReferralListItem, ReferralStatus
from referral.core.entities.sessions import RefreshToken, Session
from referral.core.entities.users import Profile, User


class UserRepository(Protocol):
    """Accounts. One that was erased is not found any more, and its address is free again."""

    async def add(self, user: User) -> None:
        """Store a new account; raises `EmailTaken` when the canonical address has one."""
        ...

    async def find(self, user_id: UUID) -> User | None: ...

    async def find_by_email(self, email_key: str) -> User | None: ...

    async def lock(self, user_id: UUID) -> User | None:
        """Hold the account's own affairs for this transaction; joining with its code goes on."""
        ...

    async def save(self, user: User) -> None:
        """Store all that can change of a locked account."""
        ...

    async def erase(self, user_id: UUID, now: datetime) -> None:
        """Take all that is personal out of a locked account; its id and its age stay.

        Its codes are to be deleted before, which waits for those who join with them.
        """
        ...

    async def lock_unconfirmed(self, now: datetime) -> User | None:
        """Lock one account whose `confirm_by` has passed and that is neither confirmed nor blocked.

        Accounts that another transaction has locked are skipped.
        """
        ...

    async def clear_confirmation_deadlines(self) -> bool:
        """Clear `confirm_by` of some accounts; return whether there may be more."""
        ...


class CodeRepository(Protocol):
    """Referral codes. A text is found without regard to case, and is never free again."""

    async def add(self, code: Code) -> None:
        """Store a new code; raises `CodeTaken`, or `ActiveCodeExists` when another is enabled."""
        ...

    async def lock(self, user_id: UUID, code_id: UUID) -> Code | None:
        """Hold one code of a user for this transaction, so that no use is counted meanwhile."""
        ...

    async def lock_enabled(self, user_id: UUID) -> None:
        """Hold the enabled code of a user, as `lock` does: waits for those who join with it."""
        ...

    async def lock_enabled_by_text(self, text: str) -> Code | None:
        """Hold the enabled code with this text for this transaction."""
        ...

    async def count_use(self, code_id: UUID, now: datetime) -> bool:
        """Count one use of a locked code, if it is active at `now` and its owner not blocked; tell
        whether it was.
        """
        ...

    async def revert_use(self, code_id: UUID) -> Code | None:
        """Take one use back, also of a deleted code; return the code unless it is deleted."""
        ...

    async def save(self, code: Code) -> None:
        """Store expiry, maximum and enabling of a locked code."""
        ...

    async def delete(self, code_id: UUID, now: datetime) -> None:
        """Take a locked code away for good; its text stays taken."""
        ...

    async def delete_all(self, user_id: UUID, now: datetime) -> None:
        """Take all codes of a user away for good."""
        ...

    async def lock_all(self, user_id: UUID, other_code_id: UUID | None) -> None:
        """Lock all codes of a user and one of somebody else, in an order that all keep to."""
        ...

    async def retire(self, user_id: UUID, *, only_spent_at: datetime | None = None) -> None:
        """Disable the user's enabled code: any, or only one that is spent at that time."""
        ...

    async def find(self, user_id: UUID, code_id: UUID) -> Code | None: ...

    async def list_all(self, user_id: UUID) -> list[Code]:
        """Return every code of a user, newest first."""
        ...

    async def find_active(self, user_id: UUID, now: datetime) -> Code | None: ...

    async def find_by_text(self, text: str) -> Code | None:
        """Return the code with this text, unless its owner is blocked."""
        ...

    async def list_page(
        self,
        user_id: UUID,
        now: datetime,
        *,
        status: CodeStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[Code]: ...


class ReferralRepository(Protocol):
    """Who joined with whose code."""

    async def add(self, referral: Referral) -> None:
        """Store who joined with whose code; raises `AlreadyReferred` for the second of a user."""
        ...

    async def lock_pending(self, user_id: UUID) -> Referral | None:
        """Lock the pending referral by which the user joined."""
        ...

    async def lock_overdue(self, joined_before: datetime) -> Referral | None:
        """Lock one pending referral from before that time, skipping those that are locked."""
        ...

    async def set_status(self, referral_id: UUID, status: ReferralStatus) -> None:
        """Store the status of a locked referral."""
        ...

    async def find_by_referred(self, user_id: UUID) -> Referral | None:
        """Return the referral by which the user joined."""
        ...

    async def list_page(
        self, user_id: UUID, *, status: ReferralStatus | None, after: UUID | None, limit: int
    ) -> list[ReferralListItem]: ...

    async def assign_to_mail(
        self, referral_id: UUID, mail_id: UUID, *, include_unassigned: bool
    ) -> User | None:
        """Have one mail tell of a referral, and if asked of all the referrer's that no mail tells
        of; return the referrer, or None when they are gone or another mail tells of it already.
        """
        ...

    async def list_by_mail(self, referrer_id: UUID, mail_id: UUID) -> list[ReferralListItem]:
        """Return the referrals that a mail tells of, the oldest first."""
        ...


class SessionRepository(Protocol):
    """Logins and their chains of refresh tokens."""

    async def add(self, session: Session) -> None: ...

    async def add_token(self, token: RefreshToken) -> None: ...

    async def lock_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """Hold the session that a refresh token belongs to for this transaction."""
        ...

    async def find_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None: ...

    async def mark_used(self, token: RefreshToken, now: datetime) -> bool:
        """Store the first use of a token, and make it the heir of its parent; False, and nothing
        is stored, when its parent has another heir.
        """
        ...

    async def revoke(self, session_id: UUID) -> None:
        """End a session: none of its refresh tokens is good any more."""
        ...

    async def prune(self, now: datetime) -> bool:
        """Delete some of what has ended; tell whether there may be more."""
        ...

    async def revoke_all(self, user_id: UUID, *, except_id: UUID | None = None) -> None:
        """End every session of a user, or every other one."""
        ...

    async def find(self, session_id: UUID) -> Session | None: ...

    async def list_all(self, user_id: UUID) -> list[Session]: ...


class ClientRepository(Protocol):
    """Other services that may ask for tokens of their own."""

    async def add(self, client: Client) -> None: ...

    async def find(self, client_id: UUID) -> Client | None: ...


class OneTimeTokenRepository(Protocol):
    """What links in mails prove, each of them once."""

    async def add(self, token: OneTimeToken) -> None: ...

    async def find_user_id(
        self, digest: bytes, purpose: TokenPurpose, now: datetime
    ) -> UUID | None:
        """Return whose token it is, if it is good."""
        ...

    async def acquire(
        self, digest: bytes, purpose: TokenPurpose, now: datetime, until: datetime
    ) -> bool:
        """Keep others from claiming the token until then; tell whether it was good, and free."""
        ...

    async def release(self, digest: bytes, until: datetime) -> None:
        """Let others claim the token again, if it is still claimed until then."""
        ...

    async def consume(self, digest: bytes, purpose: TokenPurpose, now: datetime) -> UUID | None:
        """Return whose token it is, if it was good: neither it nor another one for this is now."""
        ...

    async def delete(self, user_id: UUID, purpose: TokenPurpose | None = None) -> None:
        """Make all tokens of a user good for nothing, or those for one purpose."""
        ...

    async def prune(self, now: datetime) -> bool:
        """Delete some of those that are too old; tell whether there may be more."""
        ...


class IdempotencyRepository(Protocol):
    """Requests with an idempotency key, and what they were answered."""

    async def find(
        self, key: bytes, fingerprints: tuple[bytes, ...], since: datetime
    ) -> StoredResponse | None:
        """Return the answer that a key got since then, without holding it.

        Raises `IdempotencyKeyReused` when it came with another body.
        """
        ...

    async def acquire(
        self, request: IdempotentRequest[Any], since: datetime
    ) -> StoredResponse | None:
        """Hold the key for this transaction, and return the answer that it got since then.

        Raises `IdempotencyKeyInUse` while another transaction holds it, `IdempotencyKeyReused`
        when it came with another body.
        """
        ...

    async def save(
        self,
        request: IdempotentRequest[Any],
        response: StoredResponse,
        user_id: UUID | None,
        now: datetime,
    ) -> None:
        """Remember the answer; `user_id` is whose data may be in it."""
        ...

    async def delete(self, user_id: UUID) -> None:
        """Forget what was answered to a user."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the older answers; tell whether there may be more."""
        ...


class MailQuota(Protocol):
    """How many mails were counted against which quota; the address in its name is not stored."""

    async def reserve_slot(
        self, mail_id: UUID, quota: str, now: datetime, *, slots: int, window: timedelta
    ) -> datetime | None:
        """Count a mail, or return when there is room for it; counting one again changes nothing.
        However many ask at once, no more mails than allowed are counted against a quota.
        """
        ...

    async def reset(self, quota: str) -> None:
        """Let the count of a quota begin anew."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the older marks; tell whether there may be more."""
        ...


class ProfileRepository(Protocol):
    """What enrichment found about users."""

    async def save(self, user_id: UUID, profile: Profile, now: datetime) -> None:
        """Store what was found, in the place of what was found before."""
        ...

    async def find(self, user_id: UUID) -> Profile | None: ...

    async def delete(self, user_id: UUID) -> None: ...


class VerificationResultRepository(Protocol):
    """What was said of addresses, under their fingerprints by each key that the service has."""

    async def find(
        self, fingerprints: tuple[bytes, ...], since: datetime
    ) -> Deliverability | None: ...

    async def save(self, fingerprint: bytes, result: Deliverability, now: datetime) -> None:
        """Remember what was said, in the place of what was said before."""
        ...

    async def delete(self, fingerprints: tuple[bytes, ...]) -> None: ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the older ones; tell whether there may be more."""
        ...


class ReferredEmailRepository(Protocol):
    """Addresses of erased accounts that had a confirmed referral, as keyed fingerprints."""

    async def contains(self, fingerprints: tuple[bytes, ...], since: datetime) -> bool: ...

    async def add(self, fingerprint: bytes, referred_at: datetime) -> None:
        """Store when an address was referred, in place of an earlier time."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the older ones; return whether there may be more."""
        ...


class JobQueue(Protocol):
    """Work to be done after the commit, by whichever worker is free; without it, never."""

    async def enqueue(self, *jobs: Job) -> None: ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the older log; tell whether there may be more."""
        ...


class Repositories(Protocol):
    """All that is stored, within one transaction or one read."""

    @property
    def users(self) -> UserRepository: ...

    @property
    def codes(self) -> CodeRepository: ...

    @property
    def referrals(self) -> ReferralRepository: ...

    @property
    def sessions(self) -> SessionRepository: ...

    @property
    def clients(self) -> ClientRepository: ...

    @property
    def idempotency(self) -> IdempotencyRepository: ...

    @property
    def one_time_tokens(self) -> OneTimeTokenRepository: ...

    @property
    def mail_quota(self) -> MailQuota: ...

    @property
    def profiles(self) -> ProfileRepository: ...

    @property
    def verification_results(self) -> VerificationResultRepository: ...

    @property
    def referred_emails(self) -> ReferredEmailRepository: ...

    @property
    def jobs(self) -> JobQueue: ...


class Database(Protocol):
    """Where the records are; raises `Unavailable` when they cannot be reached."""

    def begin(self) -> AbstractAsyncContextManager[Repositories]:
        """One transaction: committed at the end of the block, undone by an error."""
        ...

    def read(self) -> AbstractAsyncContextManager[Repositories]:
        """Reads that need no common transaction; each statement sees what is committed."""
        ...


class ReadModel(Protocol):
    """What is asked most often, each with the least work; raises `Unavailable`."""

    async def find_code(self, email_key: str, *, confirmed_only: bool) -> Code | None:
        """Return the enabled code of whoever has a canonical address; it may be spent.

        None where the owner is blocked, and with `confirmed_only` where the address was never
        confirmed.
        """
        ...

    async def permits_changes(self, user_id: UUID, session_id: UUID) -> bool:
        """Return whether a session goes on, or its user is blocked, which is told apart later."""
        ...

    async def find_account(
        self, user_id: UUID, recent_limit: int, now: datetime
    ) -> AccountView | None:
        """Return an account in full as of `now`, with so many of its newest referrals."""
        ...
