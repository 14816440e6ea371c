"""Who gets what: which adapter stands behind which port, and what each use case is given.

Use cases keep nothing between calls, so all of them live as long as the app.
"""

import os
from collections.abc import AsyncIterator, Container
from datetime import timedelta
from email.headerregistry import Address
from pathlib import Path

import asyncpg
from dishka import (
    AnyOf,
    AsyncContainer,
    Provider,
    Scope,
    from_context,
    make_async_container,
    provide,
)
from dishka import provide_all as all_of
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.email_addresses import ValidatingEmailParser
from referral.adapters.in_memory import MemoryCache
from referral.adapters.jobs.metrics import QueueFigures
from referral.adapters.jobs.worker import Worker
from referral.adapters.mail.file_mailer import FileMailer
from referral.adapters.mail.qr import SegnoQrCodes
from referral.adapters.mail.renderer import MailRenderer
from referral.adapters.mail.smtp import SmtpMailer
from referral.adapters.mail.unsubscribe_tokens import SignedUnsubscribeTokens
from referral.adapters.observability import tracing
from referral.adapters.observability.logs import StructuredSecurityLog
from referral.adapters.observability.prometheus import ProcessMetrics
from referral.adapters.observability.samples import MetricSource, RequestCounts
from referral.adapters.observability.tracing import TracedMailer, TracedRedis
from referral.adapters.postgres.database import PostgresDatabase, make_engine
from referral.adapters.postgres.embedded import EmbeddedPostgres
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
from referral.adapters.third_parties.guarded_client import BUDGET
from referral.core.entities.limits import LimitGroup, Rate, network_rates
from referral.core.entities.users import Verification
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, SettleReferral
from referral.core.policies.confirmation import Confirm
from referral.core.policies.email_deliverability import Verify, VerifyEmailAtSignup
from referral.core.policies.idempotency import RecallAnswer
from referral.core.policies.login_throttle import LoginThrottle, guessing_rates
from referral.core.policies.lookup_invalidation import InvalidateLookup, InvalidateLookupLater
from referral.core.policies.reauthentication import Reauthenticate
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
    Metrics,
    QrCodes,
    SecurityLog,
)
from referral.core.ports.system import Links as LinksPort
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.core.use_cases import (
    accounts,
    clients,
    codes,
    erasure,
    lookups,
    passwords,
    referrals,
    sessions,
)
from referral.core.use_cases import email_links as proofs
from referral.core.use_cases import job_dispatch as work
from referral.core.use_cases import notifications as mail
from referral.core.use_cases import retention as upkeep
from referral.core.use_cases.enrichment import Enrich
from referral.core.use_cases.health import CheckHealth, CheckParts
from referral.settings import OFFLINE, Settings
from referral.web.controllers.tokens import Grants
from referral.web.links import Links

WORKERS = "WEB_CONCURRENCY"
"""The variable by which `referral run` tells its processes how many they are."""

NAMES = {"off": "off", "hunter": "EmailHunter", "clearbit": "Clearbit"}


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


class Observability(Provider):
    """How the service does."""

    scope = Scope.APP

    @provide
    def measured(
        self,
        requests: RequestCounts,
        database: PostgresDatabase,
        pool: DriverPool,
        memory: MemoryCache,
        redis: RedisServer | None,
        redis_cache: RedisCache | None,
        limits: CountedLimits,
        passwords: ArgonPasswordHasher,
        verifier: EmailVerifier | None,
        enrichment: Enrichment | None,
    ) -> tuple[MetricSource, ...]:
        parts = (requests, database, pool, memory, redis, redis_cache, limits, passwords)
        return tuple(
            part for part in (*parts, verifier, enrichment) if isinstance(part, MetricSource)
        )

    @provide(provides=AnyOf[ProcessMetrics, Metrics])
    def metrics(
        self, parts: tuple[MetricSource, ...], database: PostgresDatabase, settings: Settings
    ) -> ProcessMetrics:
        folder = metrics_folder(settings) if processes() > 1 else None
        return ProcessMetrics(parts, QueueFigures(database), folder)


class UseCases(Provider):
    """The use cases, and the few values among what they need."""

    scope = Scope.APP
    plain = all_of(
        accounts.BlockAccount,
        accounts.Register,
        clients.AuthenticateClient,
        clients.CreateClient,
        clients.Introspect,
        clients.IssueClientToken,
        erasure.EraseAccount,
        erasure.ExportAccount,
        passwords.ChangePassword,
        LoginThrottle,
        RecallAnswer,
        InvalidateLookup,
        InvalidateLookupLater,
        Confirm,
        CreditReferrer,
        Enrich,
        Reauthenticate,
        RemoveAccount,
        VerifyEmailAtSignup,
        SettleReferral,
        Verify,
        proofs.AskForConfirmation,
        proofs.ConfirmEmail,
        proofs.DisownEmail,
        proofs.ForgotPassword,
        proofs.InspectLink,
        proofs.ResetPassword,
        proofs.SendConfirmation,
        proofs.SendReset,
        referrals.ClaimReferrer,
        accounts.UpdateAccount,
        sessions.CheckSession,
        sessions.Refresh,
        sessions.Revoke,
        codes.IssueCode,
        codes.ListCodes,
        codes.ShowCode,
        codes.ShowActiveCode,
        codes.RenewCode,
        codes.ActivateCode,
        codes.DeactivateCode,
        codes.DeleteCode,
        lookups.LookUpCode,
        lookups.CheckCode,
        mail.MailActiveCode,
        mail.Unsubscribe,
        mail.SendCode,
        mail.SendWelcome,
        mail.TellReferrer,
        upkeep.ExpireUnconfirmed,
        upkeep.Prune,
        work.DispatchJob,
    )

    @provide
    def verification(self, settings: Settings) -> Verification:
        return Verification(required=settings.verifies_addresses)

    @provide
    def log_in(
        self,
        access_tokens: AccessTokens,
        addresses: EmailParser,
        attempts: LoginThrottle,
        clock: Clock,
        database: Database,
        ids: IdGenerator,
        passwords: PasswordHasher,
        secrets: TokenGenerator,
        settings: Settings,
    ) -> sessions.LogIn:
        lifetime = timedelta(days=settings.refresh_token_days)
        return sessions.LogIn(
            access_tokens, addresses, attempts, clock, database, ids, passwords, secrets, lifetime
        )

    @provide
    def list_referrals(self, database: Database, settings: Settings) -> referrals.ListReferrals:
        return referrals.ListReferrals(database, settings.referrals_visibility)

    @provide
    def show_account(
        self, clock: Clock, reads: ReadModel, settings: Settings
    ) -> accounts.ShowAccount:
        return accounts.ShowAccount(clock, reads, settings.referrals_visibility)

    @provide
    def grants(self, settings: Settings) -> Grants:
        return Grants(password=settings.allows_passwords)

    @provide
    def mail_limit(self, settings: Settings) -> mail.MailLimit:
        return mail.MailLimit(settings.limit_mail.number, settings.limit_mail.within)

    @provide
    def check_health(self, database: PostgresDatabase, redis: RedisServer | None) -> CheckHealth:
        return CheckHealth(database, (redis,) if redis else ())

    @provide
    def check_parts(
        self,
        database: PostgresDatabase,
        redis: RedisServer | None,
        smtp: SmtpMailer | None,
        asked: tuple[HealthProbe, ...],
    ) -> CheckParts:
        own: tuple[HealthProbe | None, ...] = (database, redis, smtp)
        return CheckParts((*(part for part in own if part is not None), *asked))


def make_container(
    settings: Settings, *replacements: Provider, requests: RequestCounts | None = None
) -> AsyncContainer:
    """Wire everything; `replacements` override single parts, as tests do."""
    context = {Settings: settings, RequestCounts: requests or RequestCounts()}
    return make_async_container(
        Adapters(), _asking(settings), Observability(), UseCases(), *replacements, context=context
    )


def _asking(settings: Settings) -> Provider:
    if not settings.asks_anybody:
        return NoThirdParties()
    from referral.asking import ThirdParties  # noqa: PLC0415 - 7 MB of memory

    return ThirdParties()


def processes() -> int:
    """Return how many processes of this service serve."""
    return int(os.environ.get(WORKERS, "1"))


def metrics_folder(settings: Settings) -> Path:
    """Return where the processes of this service write their figures."""
    return settings.data_dir / "metrics"


def private_folders(settings: Settings) -> list[Path]:
    """Return the folders of the data folder where the service writes itself."""
    keys = [] if settings.signing_key_file else [settings.key_files[0].parent]
    mail = [] if settings.smtp_url else [mail_folder(settings)]
    return [*keys, *mail]


def mail_folder(settings: Settings) -> Path:
    """Return where mails are written to when no SMTP server is set."""
    return settings.data_dir / "mail"


def embedded_postgres(settings: Settings) -> EmbeddedPostgres | None:
    """Return the embedded server when no other database is set."""
    if settings.database_url is not None:
        return None
    return EmbeddedPostgres(settings.data_dir / "postgres")


def database_url(settings: Settings) -> str:
    """Return where the database is, embedded or not."""
    embedded = embedded_postgres(settings)
    return settings.database_url or (embedded.url if embedded else "")


def rates_of(settings: Settings) -> dict[LimitGroup, Rate]:
    """Return the rate of every group: those of the settings, and those that follow from them."""
    by_address = {
        LimitGroup.REGISTER: settings.limit_register,
        LimitGroup.TOKEN: settings.limit_token,
        LimitGroup.LOOKUP: settings.limit_lookup,
    }
    return {
        **by_address,
        **network_rates(by_address),
        LimitGroup.CODES: settings.limit_codes,
        **guessing_rates(settings.limit_token),
        **BUDGET,
    }


def parts_in_use(settings: Settings) -> dict[str, str]:
    """Say which parts the settings pick, for the start-up log; no address, no password."""
    embedded = f"embedded, in {settings.data_dir / 'postgres'}"
    return {
        "database": "PostgreSQL" if settings.database_url else embedded,
        "cache": "Redis" if settings.redis_url else "in each process",
        "limits": "Redis" if settings.redis_url else "in each process",
        "mail": "SMTP" if settings.smtp_url else f"files, in {mail_folder(settings)}",
        "verification": _verification(settings),
        "enrichment": NAMES[settings.enrichment],
        "worker": "in this process" if settings.worker == "inline" else "off",
    }


def _verification(settings: Settings) -> str:
    if settings.asks_hunter:
        return NAMES["hunter"]
    return "a list of disposable domains" if settings.hunter_url == OFFLINE else NAMES["off"]
