"""The adapter behind each port; an unset URL picks the embedded one."""

from collections.abc import AsyncIterator, Container
from email.headerregistry import Address

import asyncpg
from dishka import (
    AnyOf,
    Provider,
    Scope,
    from_context,
    provide,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.email_addresses import ValidatingEmailParser
from referral.adapters.in_memory import MemoryCache
from referral.adapters.jobs.worker import Worker
from referral.adapters.mail.file_mailer import FileMailer
from referral.adapters.mail.qr import SegnoQrCodes
from referral.adapters.mail.renderer import MailRenderer
from referral.adapters.mail.smtp import SmtpMailer
from referral.adapters.mail.unsubscribe_tokens import SignedUnsubscribeTokens
from referral.adapters.observability import tracing
from referral.adapters.observability.logs import StructuredSecurityLog
from referral.adapters.observability.samples import RequestCounts
from referral.adapters.observability.tracing import TracedMailer, TracedRedis
from referral.adapters.postgres.database import PostgresDatabase, make_engine
from referral.adapters.postgres.pool import DriverPool, make_pool
from referral.adapters.postgres.read_model import PostgresReadModel
from referral.adapters.postgres.repositories.mail_reservations import PostgresMailReservations
from referral.adapters.postgres.traced import TracedConnection, trace_engine
from referral.adapters.redis.client import RedisServer
from referral.adapters.redis.lookup_cache import RedisCache
from referral.adapters.redis.rate_limits import CountedLimits
from referral.adapters.security.access_tokens import JwtAccessTokens
from referral.adapters.security.keys import KeyedFingerprints, KeyRing, make_key_file
from referral.adapters.security.passwords import ArgonPasswordHasher, common_passwords
from referral.adapters.system import (
    RandomCodeGenerator,
    RandomTokenGenerator,
    SystemClock,
    SystemIdGenerator,
)
from referral.container.configuration import (
    database_url,
    mail_folder,
    processes,
    rates_of,
)
from referral.core.ports.caching import Cache, Limits
from referral.core.ports.delivery import Mailer, MailReservations
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel
from referral.core.ports.security import (
    AccessTokens,
    Fingerprints,
    PasswordHasher,
    TokenGenerator,
    UnsubscribeTokens,
)
from referral.core.ports.system import (
    Clock,
    CodeGenerator,
    HealthProbe,
    IdGenerator,
    QrCodes,
    SecurityLog,
)
from referral.core.ports.system import Links as LinksPort
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.core.use_cases import job_dispatch as work
from referral.settings import Settings
from referral.web.links import Links


class Adapters(Provider):
    """What fulfils the ports; each unset URL picks the embedded part."""

    scope = Scope.APP
    settings = from_context(Settings)
    requests = from_context(RequestCounts)
    system = (
        provide(SystemClock, provides=Clock)
        + provide(SystemIdGenerator, provides=IdGenerator)
        + provide(RandomCodeGenerator, provides=CodeGenerator)
        + provide(RandomTokenGenerator, provides=TokenGenerator)
        + provide(ValidatingEmailParser, provides=EmailParser)
        + provide(KeyedFingerprints, provides=Fingerprints)
        + provide(StructuredSecurityLog, provides=SecurityLog)
        + provide(SegnoQrCodes, provides=QrCodes)
    )

    @provide
    async def engine(self, settings: Settings) -> AsyncIterator[AsyncEngine]:
        if tracing.is_on():
            engine = make_engine(database_url(settings), connection_class=TracedConnection)
            trace_engine(engine)
        else:
            engine = make_engine(database_url(settings))
        yield engine
        await engine.dispose()

    @provide
    def database(self, engine: AsyncEngine, fingerprints: Fingerprints) -> PostgresDatabase:
        return PostgresDatabase(engine, fingerprints)

    @provide
    async def pool(self, settings: Settings) -> AsyncIterator[DriverPool]:
        kind = TracedConnection if tracing.is_on() else asyncpg.Connection
        async with make_pool(database_url(settings), kind) as pool:
            yield pool

    @provide
    def reads(self, pool: DriverPool) -> ReadModel:
        return PostgresReadModel(pool)

    @provide
    def post_office(self, pool: DriverPool, fingerprints: Fingerprints) -> MailReservations:
        return PostgresMailReservations(pool, fingerprints)

    @provide
    def records(self, database: PostgresDatabase) -> Database:
        return database

    @provide
    async def redis(self, settings: Settings) -> AsyncIterator[RedisServer | None]:
        if settings.redis_url is None:
            yield None
            return
        server = (TracedRedis if tracing.is_on() else RedisServer)(settings.redis_url)
        yield server
        await server.close()

    @provide
    def redis_cache(self, redis: RedisServer | None) -> RedisCache | None:
        return RedisCache(redis) if redis else None

    @provide(provides=AnyOf[MemoryCache, Cache])
    def cache(self, behind: RedisCache | None) -> MemoryCache:
        return MemoryCache(behind)

    @provide(provides=AnyOf[CountedLimits, Limits])
    def limits(self, redis: RedisServer | None, settings: Settings) -> CountedLimits:
        return CountedLimits(rates_of(settings), redis, processes())

    @provide(provides=AnyOf[ArgonPasswordHasher, PasswordHasher])
    async def passwords(self) -> AsyncIterator[ArgonPasswordHasher]:
        passwords = ArgonPasswordHasher()
        yield passwords
        passwords.close()

    @provide
    def keys(self, settings: Settings) -> KeyRing:
        if not settings.signing_key_file:
            make_key_file(settings.key_files[0])
        return KeyRing(settings.key_files)

    @provide
    def access_tokens(self, settings: Settings, keys: KeyRing, clock: Clock) -> AccessTokens:
        minutes = settings.access_token_minutes
        return JwtAccessTokens(settings.public_url, keys, minutes, clock)

    @provide
    def common_passwords(self) -> Container[str]:
        return common_passwords()

    @provide
    def mute_tokens(self, keys: KeyRing) -> UnsubscribeTokens:
        return SignedUnsubscribeTokens(keys)

    @provide
    def links(self, settings: Settings) -> Links:
        return Links(
            settings.public_url, settings.landing, settings.confirm_page, settings.reset_page
        )

    @provide
    def own_links(self, links: Links) -> LinksPort:
        return links

    @provide
    def letters(self, settings: Settings, clock: Clock, qr_codes: QrCodes) -> MailRenderer:
        sender = settings.mail_from
        address = Address(sender.name, sender.local_part, sender.domain)
        return MailRenderer(address, clock, qr_codes)

    @provide
    async def smtp(
        self, settings: Settings, letters: MailRenderer
    ) -> AsyncIterator[SmtpMailer | None]:
        if settings.smtp_url is None:
            yield None
            return
        mailer = SmtpMailer(settings.smtp_url, letters)
        yield mailer
        await mailer.close()

    @provide
    def mailer(self, settings: Settings, letters: MailRenderer, smtp: SmtpMailer | None) -> Mailer:
        if smtp is None:
            return FileMailer(mail_folder(settings), letters)
        return TracedMailer(smtp, settings.smtp_url or "") if tracing.is_on() else smtp

    @provide
    def worker(self, settings: Settings, do_job: work.DispatchJob) -> Worker:
        return Worker(database_url(settings), do_job)


class NoThirdParties(Provider):
    """New addresses are taken as they are."""

    scope = Scope.APP

    @provide
    def email_verifier(self) -> EmailVerifier | None:
        return None

    @provide
    def enrichment(self) -> Enrichment | None:
        return None

    @provide
    def parts(self) -> tuple[HealthProbe, ...]:
        return ()
