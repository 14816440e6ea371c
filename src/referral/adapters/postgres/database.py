"""Connections and transactions."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

import asyncpg
from advanced_alchemy.config import EngineConfig, SQLAlchemyAsyncConfig
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.observability.samples import Sample
from referral.adapters.postgres import pooler
from referral.adapters.postgres.admission import PoolLimiter
from referral.adapters.postgres.connection import DatabaseSession, acquire_session
from referral.adapters.postgres.repositories.clients import PostgresClientRepository
from referral.adapters.postgres.repositories.codes import PostgresCodeRepository
from referral.adapters.postgres.repositories.idempotency import PostgresIdempotencyRepository
from referral.adapters.postgres.repositories.mail_quota import PostgresMailQuota
from referral.adapters.postgres.repositories.one_time_tokens import PostgresOneTimeTokenRepository
from referral.adapters.postgres.repositories.profiles import PostgresProfileRepository
from referral.adapters.postgres.repositories.referrals import PostgresReferralRepository
from referral.adapters.postgres.repositories.referred_emails import PostgresReferredEmailRepository
from referral.adapters.postgres.repositories.sessions import PostgresSessionRepository
from referral.adapters.postgres.repositories.users import PostgresUserRepository
from referral.adapters.postgres.repositories.verdicts import PostgresVerificationResults
from referral.core.ports.security import Fingerprinter

DATABASE_TIMEOUT_SECONDS = 1.5
"""How long a request waits for a connection or an answer."""

POOL_STALL_SECONDS = 1.0
"""How long the queue for connections may stand still, in seconds."""

CLOSE_TIMEOUT_SECONDS = 0.2
"""How long, in seconds, a connection may take to be closed."""

POOL_SIZE = 10
"""Connections of a process: few, so that those who want one row do not queue inside the server."""


@dataclass(frozen=True)
class PostgresRepositories:
    """The records of one session."""

    session: DatabaseSession
    fingerprints: Fingerprinter

    @cached_property
    def users(self) -> PostgresUserRepository:
        """Accounts."""
        return PostgresUserRepository(self.session)

    @cached_property
    def codes(self) -> PostgresCodeRepository:
        """Referral codes."""
        return PostgresCodeRepository(self.session)

    @cached_property
    def referrals(self) -> PostgresReferralRepository:
        """Who joined with whose code."""
        return PostgresReferralRepository(self.session)

    @cached_property
    def sessions(self) -> PostgresSessionRepository:
        """Logins."""
        return PostgresSessionRepository(self.session)

    @cached_property
    def clients(self) -> PostgresClientRepository:
        """Other services."""
        return PostgresClientRepository(self.session)

    @cached_property
    def idempotency(self) -> PostgresIdempotencyRepository:
        """Requests with an idempotency key."""
        return PostgresIdempotencyRepository(self.session)

    @cached_property
    def one_time_tokens(self) -> PostgresOneTimeTokenRepository:
        """What links in mails prove."""
        return PostgresOneTimeTokenRepository(self.session)

    @cached_property
    def mail_quota(self) -> PostgresMailQuota:
        """How many mails went to which address."""
        return PostgresMailQuota(self.session, self.fingerprints)

    @cached_property
    def profiles(self) -> PostgresProfileRepository:
        """What enrichment found."""
        return PostgresProfileRepository(self.session)

    @cached_property
    def verification_results(self) -> PostgresVerificationResults:
        """What was said of addresses."""
        return PostgresVerificationResults(self.session)

    @cached_property
    def referred_emails(self) -> PostgresReferredEmailRepository:
        """Addresses that were referred."""
        return PostgresReferredEmailRepository(self.session)

    @cached_property
    def jobs(self) -> PostgresJobQueue:
        """Work for after the commit."""
        return PostgresJobQueue(self.session)


class QuickClosingConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that says goodbye in a moment: a server that hangs does not answer it."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above it
        """Close, or after a moment raise `TimeoutError`, upon which SQLAlchemy just drops it."""
        await super().close(timeout=min(timeout or CLOSE_TIMEOUT_SECONDS, CLOSE_TIMEOUT_SECONDS))


class PostgresDatabase:
    """The records in PostgreSQL."""

    name = "database"

    def __init__(self, engine: AsyncEngine, fingerprints: Fingerprinter) -> None:
        """Take an engine of `make_engine`, and what addresses are counted under."""
        self._fingerprints = fingerprints
        self._limiter = PoolLimiter(POOL_SIZE, POOL_STALL_SECONDS)
        # A lone SELECT in a transaction costs three round trips, in autocommit one.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresRepositories]:
        """See the port."""
        async with self.read() as repositories, repositories.session.transaction():
            yield repositories

    @asynccontextmanager
    async def read(self) -> AsyncIterator[PostgresRepositories]:
        """See the port."""
        async with self._limiter.permit(), acquire_session(self._engine) as session:
            yield PostgresRepositories(session, self._fingerprints)

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._limiter.samples("main")

    async def check(self) -> str:
        """Ask the database for a sign of life."""
        async with self.read() as repositories:
            await repositories.session.execute(text("SELECT 1"))
        return "ok"


def make_engine(
    url: str,
    *,
    command_timeout: float | None = DATABASE_TIMEOUT_SECONDS,
    connection_class: type[asyncpg.Connection] = QuickClosingConnection,
) -> AsyncEngine:
    """Make the engine for a `postgresql://` URL, with timeouts that fit a waiting request."""
    parsed = make_url(pooler.driver_url(url))
    if mode := parsed.query.get("sslmode"):  # as PostgreSQL calls it; SQLAlchemy has its own name
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    parsed = parsed.set(drivername="postgresql+asyncpg")
    return SQLAlchemyAsyncConfig(
        connection_string=parsed.render_as_string(hide_password=False),
        engine_config=EngineConfig(
            hide_parameters=True,  # an address or a hash has no place in an error or a log
            pool_size=POOL_SIZE,
            max_overflow=0,
            connect_args={
                "connection_class": connection_class,
                "timeout": DATABASE_TIMEOUT_SECONDS,
                "command_timeout": command_timeout,
                "server_settings": pooler.server_settings(url),
                **pooler.dialect_options(url),
            },
        ),
    ).get_engine()
