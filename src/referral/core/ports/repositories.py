"""Repositories, transactions and the read model.

`lock…` methods lock rows until the end of the transaction. `prune` methods delete a bounded number
of old rows, and return whether there may be more. `find…` methods return None for missing rows.
"""

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
from referral.core.ports.audit import AuditLog
from referral.core.ports.events import EventLog
from referral.core.ports.login_sessions import AuthorizationCodeRepository, LoginSessionRepository
from referral.core.ports.risk import UserNetworks
from referral.core.ports.searches import CodeSearch, ReferralSearch
from referral.core.ports.signing_keys import SigningKeyRegistry
from referral.core.ports.statistics import StatisticsRepository
from referral.core.ports.user_directory import UserDirectory
from referral.core.ports.webhooks import (
    DeliveryRepository,
    ReplayRepository,
    WebhookRepository,
)


class UserRepository(Protocol):
    """Accounts. An erased account is not found, and its e-mail address is available again."""

    async def add(self, user: User) -> None:
        """Store a new account; raises `EmailTaken` or `ExternalIdTaken`."""
        ...

    async def find(self, user_id: UUID) -> User | None: ...

    async def find_by_email(self, email_key: str) -> User | None: ...

    async def find_by_external_id(self, external_id: str) -> User | None: ...

    async def find_costliest_hash(self) -> str | None:
        """Return the imported password hash that takes longest to verify; None if there is none."""
        ...

    async def lock(self, user_id: UUID) -> User | None:
        """Lock an account against changes; registrations with its code are not blocked."""
        ...

    async def save(self, user: User) -> None:
        """Store the mutable fields of a locked account.

        Raises `EmailTaken` or `ExternalIdTaken` if another account has the changed value.
        """
        ...

    async def erase(self, user_id: UUID, now: datetime) -> None:
        """Delete all personal data of a locked account; its id and creation time remain.

        The caller deletes its codes first, which waits for registrations that use them.
        """
        ...

    async def lock_unconfirmed(self, now: datetime) -> User | None:
        """Lock an account past its `confirm_by` that is neither confirmed nor blocked.

        Rows that are locked by other transactions are skipped.
        """
        ...

    async def clear_confirmation_deadlines(self) -> bool:
        """Clear `confirm_by` of a batch of accounts; return whether there may be more."""
        ...


class CodeRepository(Protocol):
    """Referral codes. Texts are case-insensitive and are never reused."""

    async def add(self, code: Code) -> None:
        """Store a new code; raises `CodeTaken`, or `ActiveCodeExists` if another is enabled."""
        ...

    async def lock(self, user_id: UUID, code_id: UUID) -> Code | None:
        """Lock one of the user's codes, so that no other transaction counts a use."""
        ...

    async def lock_enabled(self, user_id: UUID) -> None:
        """Lock the user's enabled code; this waits for registrations that use it."""
        ...

    async def lock_enabled_by_text(self, text: str) -> Code | None:
        """Lock the enabled code with this text."""
        ...

    async def count_use(self, code_id: UUID, now: datetime) -> bool:
        """Increment `uses` of a locked code; False if it is inactive or its owner is blocked."""
        ...

    async def revert_use(self, code_id: UUID, now: datetime) -> Code | None:
        """Decrement `uses`, also of a deleted code; return the code unless it is deleted.

        A code that was exhausted when it expired, before `now`, counts as reported: see
        `report_expiry`.
        """
        ...

    async def restore_use(self, code_id: UUID) -> Code | None:
        """Increment `uses`, also beyond the maximum and of a deleted code.

        Returns the code unless it is deleted.
        """
        ...

    async def save(self, code: Code) -> None:
        """Store `expires_at`, `max_uses` and `enabled` of a locked code."""
        ...

    async def delete(self, code_id: UUID, now: datetime) -> None:
        """Mark a locked code as deleted; its text remains reserved."""
        ...

    async def delete_all(self, user_id: UUID, now: datetime) -> None:
        """Mark all codes of a user as deleted."""
        ...

    async def lock_all(self, user_id: UUID, other_code_id: UUID | None) -> list[Code]:
        """Lock all codes of a user and one other code, in order of id to avoid deadlocks.

        Returns the user's codes.
        """
        ...

    async def retire(self, user_id: UUID, *, only_spent_at: datetime | None = None) -> Code | None:
        """Disable the user's enabled code, or with `only_spent_at` only a code spent by then.

        Returns the code, if there was one.
        """
        ...

    async def report_expiry(self, code_id: UUID) -> bool:
        """Mark the expiry of a locked code as reported; return False if it was already.

        A new `expires_at` is not reported.
        """
        ...

    async def report_expiries(self, now: datetime, limit: int) -> list[Code]:
        """Mark the expiries of enabled codes as reported; return the codes.

        Rows that are locked by other transactions are skipped.
        """
        ...

    async def find(self, user_id: UUID, code_id: UUID) -> Code | None: ...

    async def list_all(self, user_id: UUID) -> list[Code]:
        """Return all codes of a user, newest first."""
        ...

    async def find_active(self, user_id: UUID, now: datetime) -> Code | None: ...

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
    """Referrals; a user has at most one referrer."""

    async def add(self, referral: Referral) -> None:
        """Store a referral; raises `AlreadyReferred` if the referred user has one."""
        ...

    async def lock_pending(self, user_id: UUID) -> Referral | None:
        """Lock the pending referral of a referred user."""
        ...

    async def lock_overdue(self, joined_before: datetime) -> Referral | None:
        """Lock a pending referral that expires and is older than `joined_before`.

        Rows that are locked by other transactions are skipped.
        """
        ...

    async def lock(self, referral_id: UUID) -> Referral | None: ...

    async def set_status(self, referral_id: UUID, status: ReferralStatus, now: datetime) -> None:
        """Store the status of a locked referral, which is not held any more, and its time."""
        ...

    async def save_risk(self, referral: Referral) -> None:
        """Store the risk signals of a locked referral, and whether it is held."""
        ...

    async def save_decision(self, referral: Referral) -> None:
        """Store the status, reason and time of an admin's decision; the referral is not held."""
        ...

    async def find_by_referred(self, user_id: UUID) -> Referral | None:
        """Return the referral of a referred user."""
        ...

    async def list_page(
        self, user_id: UUID, *, status: ReferralStatus | None, after: UUID | None, limit: int
    ) -> list[ReferralListItem]: ...

    async def assign_to_mail(
        self, referral_id: UUID, mail_id: UUID, *, include_unassigned: bool
    ) -> User | None:
        """Assign a referral to a mail, optionally with all the referrer's unassigned referrals.

        Returns the referrer, or None if the account is erased or another mail has the referral.
        """
        ...

    async def list_by_mail(self, referrer_id: UUID, mail_id: UUID) -> list[ReferralListItem]:
        """Return the referrals assigned to a mail, oldest first."""
        ...


class SessionRepository(Protocol):
    """Sessions and their refresh tokens."""

    async def add(self, session: Session) -> None: ...

    async def add_token(self, token: RefreshToken) -> None: ...

    async def lock_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """Lock the session of a refresh token."""
        ...

    async def find_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None: ...

    async def mark_used(self, token: RefreshToken, now: datetime) -> bool:
        """Store the first use of a token, and set it as its parent's heir.

        Returns False and stores nothing if the parent has another heir.
        """
        ...

    async def revoke(self, session_id: UUID) -> bool:
        """Delete a session with its refresh tokens; return False if there is no such session."""
        ...

    async def prune(self, now: datetime) -> bool:
        """Delete some of the expired sessions."""
        ...

    async def revoke_all(self, user_id: UUID, *, except_id: UUID | None = None) -> None:
        """Revoke all sessions of a locked user, except one if given.

        This also ends the user's login sessions and unused authorization codes.
        """
        ...

    async def find(self, session_id: UUID) -> Session | None: ...

    async def list_all(self, user_id: UUID) -> list[Session]: ...


class ClientRepository(Protocol):
    """OAuth clients."""

    async def add(self, client: Client) -> None:
        """Store a client; raises `Conflict` if another one has its name."""
        ...

    async def find(self, client_id: UUID) -> Client | None: ...

    async def find_by_name(self, name: str) -> Client | None: ...

    async def list_all(self) -> list[Client]:
        """Return all clients, by name."""
        ...

    async def list_page(self, *, after: UUID | None, limit: int) -> list[Client]:
        """Return clients, newest first."""
        ...

    async def replace_secret(self, client_id: UUID, secret_digest: bytes) -> bool:
        """Replace the digest of the secret; return False if there is no such client."""
        ...

    async def remove(self, client_id: UUID) -> bool:
        """Delete a client; return False if there is no such client."""
        ...


class OneTimeTokenRepository(Protocol):
    """Single-use tokens of e-mail links, by their digests."""

    async def add(self, token: OneTimeToken) -> None: ...

    async def find_user_id(
        self, digest: bytes, purpose: TokenPurpose, now: datetime
    ) -> UUID | None:
        """Return the owner of a valid token."""
        ...

    async def acquire(
        self, digest: bytes, purpose: TokenPurpose, now: datetime, until: datetime
    ) -> bool:
        """Reserve a token until a time; return False if it is invalid or reserved already."""
        ...

    async def release(self, digest: bytes, until: datetime) -> None:
        """Release a reservation that was acquired with the same `until`."""
        ...

    async def consume(self, digest: bytes, purpose: TokenPurpose, now: datetime) -> UUID | None:
        """Consume a valid token and the owner's others for this purpose; return the owner."""
        ...

    async def delete(self, user_id: UUID, purpose: TokenPurpose | None = None) -> None:
        """Delete all tokens of a user, or only those for one purpose."""
        ...

    async def prune(self, now: datetime) -> bool:
        """Delete some of the expired tokens."""
        ...


class IdempotencyRepository(Protocol):
    """Stored responses by idempotency key."""

    async def find(
        self, key: bytes, request_digests: tuple[bytes, ...], since: datetime
    ) -> StoredResponse | None:
        """Return the response stored for a key since a time, without locking the key.

        Raises `IdempotencyKeyReused` if the key was used with another request.
        """
        ...

    async def acquire(
        self, request: IdempotentRequest[Any], since: datetime
    ) -> StoredResponse | None:
        """Lock the key until the end of the transaction, and return the response stored for it.

        Raises `IdempotencyKeyInUse` if another transaction holds the lock, and
        `IdempotencyKeyReused` if the key was used with another request.
        """
        ...

    async def save(
        self,
        request: IdempotentRequest[Any],
        response: StoredResponse,
        user_id: UUID | None,
        now: datetime,
    ) -> None:
        """Store a response; `user_id` is the user whose data it may contain."""
        ...

    async def delete(self, user_id: UUID) -> None:
        """Delete the responses that may contain a user's data."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the responses stored before a time."""
        ...


class MailQuota(Protocol):
    """Counts of mails by quota. Quota names contain addresses, so only digests are stored."""

    async def reserve_slot(
        self, mail_id: UUID, quota: str, now: datetime, *, slots: int, window: timedelta
    ) -> datetime | None:
        """Reserve one of `slots` mails in a window, or return the time when a slot becomes free.

        The method is idempotent by `mail_id`, and exact under concurrency.
        """
        ...

    async def reset(self, quota: str) -> None:
        """Delete the reservations of a quota."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the reservations made before a time."""
        ...


class ProfileRepository(Protocol):
    """Profiles from enrichment."""

    async def save(self, user_id: UUID, profile: Profile, now: datetime) -> None:
        """Store a user's profile; it replaces an earlier one."""
        ...

    async def find(self, user_id: UUID) -> Profile | None: ...

    async def delete(self, user_id: UUID) -> None: ...


class VerificationResultRepository(Protocol):
    """Results of e-mail verification, by fingerprint of the address.

    Methods take one fingerprint for each signing key, as a result may be stored under an old key.
    """

    async def find(
        self, fingerprints: tuple[bytes, ...], since: datetime
    ) -> Deliverability | None: ...

    async def save(self, fingerprint: bytes, result: Deliverability, now: datetime) -> None:
        """Store a result; it replaces an earlier one."""
        ...

    async def delete(self, fingerprints: tuple[bytes, ...]) -> None: ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the results stored before a time."""
        ...


class ReferredEmailRepository(Protocol):
    """Fingerprints of the addresses of erased accounts that had a confirmed referral."""

    async def contains(self, fingerprints: tuple[bytes, ...], since: datetime) -> bool: ...

    async def add(self, fingerprint: bytes, referred_at: datetime) -> None:
        """Store the time of an address's referral; it replaces an earlier one."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the referrals from before a time."""
        ...


class JobQueue(Protocol):
    """The job queue. Jobs are enqueued in a transaction, and run after its commit."""

    async def enqueue(self, *jobs: Job) -> None: ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the job log's entries from before a time."""
        ...


class Repositories(Protocol):
    """All repositories, within one transaction or one read."""

    @property
    def users(self) -> UserRepository: ...

    @property
    def user_directory(self) -> UserDirectory: ...

    @property
    def codes(self) -> CodeRepository: ...

    @property
    def referrals(self) -> ReferralRepository: ...

    @property
    def sessions(self) -> SessionRepository: ...

    @property
    def login_sessions(self) -> LoginSessionRepository: ...

    @property
    def authorization_codes(self) -> AuthorizationCodeRepository: ...

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
    def networks(self) -> UserNetworks: ...

    @property
    def audit(self) -> AuditLog: ...

    @property
    def signing_keys(self) -> SigningKeyRegistry: ...

    @property
    def events(self) -> EventLog: ...

    @property
    def webhooks(self) -> WebhookRepository: ...

    @property
    def deliveries(self) -> DeliveryRepository: ...

    @property
    def replays(self) -> ReplayRepository: ...

    @property
    def code_search(self) -> CodeSearch: ...

    @property
    def referral_search(self) -> ReferralSearch: ...

    @property
    def statistics(self) -> StatisticsRepository: ...

    @property
    def jobs(self) -> JobQueue: ...


class Database(Protocol):
    """The database; raises `Unavailable` if it cannot be reached."""

    def begin(self) -> AbstractAsyncContextManager[Repositories]:
        """Begin a transaction; the block's end commits it, an exception rolls it back."""
        ...

    def read(self) -> AbstractAsyncContextManager[Repositories]:
        """Read without a transaction; each statement sees the latest committed data."""
        ...


class ReadModel(Protocol):
    """The most frequent reads, each in one statement; raises `Unavailable`."""

    async def find_code(self, email_key: str, *, confirmed_only: bool) -> Code | None:
        """Return the enabled code of a canonical address's owner; it may be expired or exhausted.

        Returns None if the owner is blocked or, with `confirmed_only`, has not confirmed the
        address.
        """
        ...

    async def find_code_by_text(self, text: str) -> Code | None:
        """Return the code with this text, unless its owner is blocked."""
        ...

    async def has_session_or_is_blocked(self, user_id: UUID, session_id: UUID) -> bool:
        """Return whether a session exists or its user is blocked.

        Blocking revokes sessions. For a blocked user, the lock on the account raises
        `AccountBlocked`, which tells more than a missing session.
        """
        ...

    async def find_account(
        self, user_id: UUID, recent_limit: int, now: datetime
    ) -> AccountView | None:
        """Return an account as of `now`, with up to `recent_limit` of its newest referrals."""
        ...

    async def find_logged_in_account(
        self, login_digest: bytes, recent_limit: int, now: datetime
    ) -> AccountView | None:
        """Return the account of a login session that has not expired, as `find_account` does."""
        ...
