"""The database port: transactions and reads over the engine's connections."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.observability.samples import Sample
from referral.adapters.postgres.connection import DatabaseConnection, acquire_connection
from referral.adapters.postgres.engine import POOL_SIZE
from referral.adapters.postgres.pool_limiter import POOL_STALL_SECONDS, PoolLimiter
from referral.adapters.postgres.repositories.audit import PostgresAuditLog
from referral.adapters.postgres.repositories.authorization_codes import (
    PostgresAuthorizationCodeRepository,
)
from referral.adapters.postgres.repositories.clients import PostgresClientRepository
from referral.adapters.postgres.repositories.codes import PostgresCodeRepository
from referral.adapters.postgres.repositories.events import PostgresEventLog
from referral.adapters.postgres.repositories.idempotency import PostgresIdempotencyRepository
from referral.adapters.postgres.repositories.login_sessions import (
    PostgresLoginSessionRepository,
)
from referral.adapters.postgres.repositories.mail_quota import PostgresMailQuota
from referral.adapters.postgres.repositories.one_time_tokens import PostgresOneTimeTokenRepository
from referral.adapters.postgres.repositories.profiles import PostgresProfileRepository
from referral.adapters.postgres.repositories.referrals import PostgresReferralRepository
from referral.adapters.postgres.repositories.referred_emails import PostgresReferredEmailRepository
from referral.adapters.postgres.repositories.searches import (
    PostgresCodeSearch,
    PostgresReferralSearch,
)
from referral.adapters.postgres.repositories.sessions import PostgresSessionRepository
from referral.adapters.postgres.repositories.signing_keys import PostgresSigningKeyRegistry
from referral.adapters.postgres.repositories.statistics import PostgresStatisticsRepository
from referral.adapters.postgres.repositories.user_directory import PostgresUserDirectory
from referral.adapters.postgres.repositories.user_networks import PostgresUserNetworks
from referral.adapters.postgres.repositories.users import PostgresUserRepository
from referral.adapters.postgres.repositories.verification_results import (
    PostgresVerificationResultRepository,
)
from referral.adapters.postgres.repositories.webhook_deliveries import PostgresDeliveryRepository
from referral.adapters.postgres.repositories.webhooks import (
    PostgresReplayRepository,
    PostgresWebhookRepository,
)
from referral.core.ports.repositories import JobQueue
from referral.core.ports.security import Fingerprinter

MakeJobQueue = Callable[[DatabaseConnection], JobQueue]
"""Makes the queue that stores jobs in the transaction of a connection."""


@dataclass(frozen=True)
class PostgresRepositories:
    """The repositories over one connection; each is made at its first use."""

    connection: DatabaseConnection
    fingerprinter: Fingerprinter
    make_job_queue: MakeJobQueue

    @cached_property
    def users(self) -> PostgresUserRepository:
        return PostgresUserRepository(self.connection)

    @cached_property
    def user_directory(self) -> PostgresUserDirectory:
        return PostgresUserDirectory(self.connection)

    @cached_property
    def codes(self) -> PostgresCodeRepository:
        return PostgresCodeRepository(self.connection)

    @cached_property
    def referrals(self) -> PostgresReferralRepository:
        return PostgresReferralRepository(self.connection)

    @cached_property
    def sessions(self) -> PostgresSessionRepository:
        return PostgresSessionRepository(self.connection)

    @cached_property
    def login_sessions(self) -> PostgresLoginSessionRepository:
        return PostgresLoginSessionRepository(self.connection)

    @cached_property
    def authorization_codes(self) -> PostgresAuthorizationCodeRepository:
        return PostgresAuthorizationCodeRepository(self.connection)

    @cached_property
    def clients(self) -> PostgresClientRepository:
        return PostgresClientRepository(self.connection)

    @cached_property
    def idempotency(self) -> PostgresIdempotencyRepository:
        return PostgresIdempotencyRepository(self.connection)

    @cached_property
    def one_time_tokens(self) -> PostgresOneTimeTokenRepository:
        return PostgresOneTimeTokenRepository(self.connection)

    @cached_property
    def mail_quota(self) -> PostgresMailQuota:
        return PostgresMailQuota(self.connection, self.fingerprinter)

    @cached_property
    def profiles(self) -> PostgresProfileRepository:
        return PostgresProfileRepository(self.connection)

    @cached_property
    def verification_results(self) -> PostgresVerificationResultRepository:
        return PostgresVerificationResultRepository(self.connection)

    @cached_property
    def referred_emails(self) -> PostgresReferredEmailRepository:
        return PostgresReferredEmailRepository(self.connection)

    @cached_property
    def networks(self) -> PostgresUserNetworks:
        return PostgresUserNetworks(self.connection)

    @cached_property
    def code_search(self) -> PostgresCodeSearch:
        return PostgresCodeSearch(self.connection)

    @cached_property
    def referral_search(self) -> PostgresReferralSearch:
        return PostgresReferralSearch(self.connection)

    @cached_property
    def audit(self) -> PostgresAuditLog:
        return PostgresAuditLog(self.connection)

    @cached_property
    def signing_keys(self) -> PostgresSigningKeyRegistry:
        return PostgresSigningKeyRegistry(self.connection)

    @cached_property
    def events(self) -> PostgresEventLog:
        return PostgresEventLog(self.connection)

    @cached_property
    def webhooks(self) -> PostgresWebhookRepository:
        return PostgresWebhookRepository(self.connection)

    @cached_property
    def deliveries(self) -> PostgresDeliveryRepository:
        return PostgresDeliveryRepository(self.connection)

    @cached_property
    def replays(self) -> PostgresReplayRepository:
        return PostgresReplayRepository(self.connection)

    @cached_property
    def statistics(self) -> PostgresStatisticsRepository:
        return PostgresStatisticsRepository(self.connection)

    @cached_property
    def jobs(self) -> JobQueue:
        return self.make_job_queue(self.connection)


class PostgresDatabase:
    """PostgreSQL behind the database port."""

    name = "database"

    def __init__(
        self, engine: AsyncEngine, fingerprinter: Fingerprinter, make_job_queue: MakeJobQueue
    ) -> None:
        """Take an engine of `make_engine`, and what the repositories need besides a connection."""
        self._engine = engine
        self._fingerprinter = fingerprinter
        self._make_job_queue = make_job_queue
        self._limiter = PoolLimiter(POOL_SIZE, POOL_STALL_SECONDS)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresRepositories]:
        async with self.read() as repositories, repositories.connection.transaction():
            yield repositories

    @asynccontextmanager
    async def read(self) -> AsyncIterator[PostgresRepositories]:
        async with self._limiter.permit(), acquire_connection(self._engine) as connection:
            yield PostgresRepositories(connection, self._fingerprinter, self._make_job_queue)

    def samples(self) -> Iterator[Sample]:
        return self._limiter.samples("main")

    async def check(self) -> str:
        async with self.read() as repositories:
            await repositories.connection.check_writable()
        return "ok"
