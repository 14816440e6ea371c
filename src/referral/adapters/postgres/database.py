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

from referral.adapters.jobs.queue import PostgresJobs
from referral.adapters.observability.samples import Sample
from referral.adapters.postgres import pooler
from referral.adapters.postgres.admission import PoolLimiter
from referral.adapters.postgres.connection import DatabaseSession, connected
from referral.adapters.postgres.repositories.clients import PostgresClients
from referral.adapters.postgres.repositories.codes import PostgresCodes
from referral.adapters.postgres.repositories.idempotency import PostgresIdempotencyRecords
from referral.adapters.postgres.repositories.mail_quota import PostgresMailQuota
from referral.adapters.postgres.repositories.one_time_tokens import PostgresOneTimeTokens
from referral.adapters.postgres.repositories.profiles import PostgresProfiles
from referral.adapters.postgres.repositories.referrals import PostgresReferrals
from referral.adapters.postgres.repositories.referred_emails import PostgresReferredEmails
from referral.adapters.postgres.repositories.sessions import PostgresSessions
from referral.adapters.postgres.repositories.users import PostgresUsers
from referral.adapters.postgres.repositories.verdicts import PostgresVerdicts
from referral.core.ports.security import Fingerprints

TIMEOUT_SECONDS = 1.5
"""How long a request waits for a connection or an answer."""

QUEUE_STALL_SECONDS = 1.0
"""How long the queue for connections may stand still, in seconds."""

GOODBYE = 0.2
"""How long, in seconds, a connection may take to be closed."""

POOL = 10
"""Connections of a process: few, so that those who want one row do not queue inside the server."""


@dataclass(frozen=True)
class PostgresRepositories:
    """The records of one session."""

    session: DatabaseSession
    fingerprints: Fingerprints

    @cached_property
    def users(self) -> PostgresUsers:
        """Accounts."""
        return PostgresUsers(self.session)

    @cached_property
    def codes(self) -> PostgresCodes:
        """Referral codes."""
        return PostgresCodes(self.session)

    @cached_property
    def referrals(self) -> PostgresReferrals:
        """Who joined with whose code."""
        return PostgresReferrals(self.session)

    @cached_property
    def sessions(self) -> PostgresSessions:
        """Logins."""
        return PostgresSessions(self.session)

    @cached_property
    def clients(self) -> PostgresClients:
        """Other services."""
        return PostgresClients(self.session)

    @cached_property
    def idempotency(self) -> PostgresIdempotencyRecords:
        """Requests with an idempotency key."""
        return PostgresIdempotencyRecords(self.session)

    @cached_property
    def one_time_tokens(self) -> PostgresOneTimeTokens:
        """What links in mails prove."""
        return PostgresOneTimeTokens(self.session)

    @cached_property
    def mails(self) -> PostgresMailQuota:
        """How many mails went to which address."""
        return PostgresMailQuota(self.session, self.fingerprints)

    @cached_property
    def profiles(self) -> PostgresProfiles:
        """What enrichment found."""
        return PostgresProfiles(self.session)

    @cached_property
    def verdicts(self) -> PostgresVerdicts:
        """What was said of addresses."""
        return PostgresVerdicts(self.session)

    @cached_property
    def referred_emails(self) -> PostgresReferredEmails:
        """Addresses that were referred."""
        return PostgresReferredEmails(self.session)

    @cached_property
    def jobs(self) -> PostgresJobs:
        """Work for after the commit."""
        return PostgresJobs(self.session)


class ImpatientConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that says goodbye in a moment: a server that hangs does not answer it."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above it
        """Close, or after a moment raise `TimeoutError`, upon which SQLAlchemy just drops it."""
        await super().close(timeout=min(timeout or GOODBYE, GOODBYE))


class PostgresDatabase:
    """The records in PostgreSQL."""

    name = "database"

    def __init__(self, engine: AsyncEngine, fingerprints: Fingerprints) -> None:
        """Take an engine of `make_engine`, and what addresses are counted under."""
        self._fingerprints = fingerprints
        self._admission = PoolLimiter(POOL, QUEUE_STALL_SECONDS)
        # A lone SELECT in a transaction costs three round trips, in autocommit one.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresRepositories]:
        """See the port."""
        async with self.read() as records, records.session.transaction():
            yield records

    @asynccontextmanager
    async def read(self) -> AsyncIterator[PostgresRepositories]:
        """See the port."""
        async with self._admission.place(), connected(self._engine) as session:
            yield PostgresRepositories(session, self._fingerprints)

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._admission.measures("main")

    async def check(self) -> str:
        """Ask the database for a sign of life."""
        async with self.read() as records:
            await records.session.execute(text("SELECT 1"))
        return "ok"


def make_engine(
    url: str,
    *,
    command_timeout: float | None = TIMEOUT_SECONDS,
    connection_class: type[asyncpg.Connection] = ImpatientConnection,
) -> AsyncEngine:
    """Make the engine for a `postgresql://` URL, with timeouts that fit a waiting request."""
    address = make_url(pooler.plain(url))
    if mode := address.query.get("sslmode"):  # as PostgreSQL calls it; SQLAlchemy has its own name
        address = address.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    address = address.set(drivername="postgresql+asyncpg")
    return SQLAlchemyAsyncConfig(
        connection_string=address.render_as_string(hide_password=False),
        engine_config=EngineConfig(
            hide_parameters=True,  # an address or a hash has no place in an error or a log
            pool_size=POOL,
            max_overflow=0,
            connect_args={
                "connection_class": connection_class,
                "timeout": TIMEOUT_SECONDS,
                "command_timeout": command_timeout,
                "server_settings": pooler.server_settings(url),
                **pooler.dialect_options(url),
            },
        ),
    ).get_engine()
