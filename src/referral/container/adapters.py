"""The adapters and their ports."""

from collections.abc import AsyncIterator, Container
from email.headerregistry import Address

from dishka import AnyOf, Provider, Scope, from_context, provide
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.disposable_domains import ListedDisposableDomains
from referral.adapters.email_addresses import ValidatingEmailParser
from referral.adapters.jobs.periodic_tasks import PeriodicTask, PeriodicTaskRunner
from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.jobs.worker import WEBHOOK_WORKER, JobWorker, WorkerGroup
from referral.adapters.mail.file_mailer import FileMailer
from referral.adapters.mail.qr import SegnoQrCodeRenderer
from referral.adapters.mail.renderer import MailRenderer
from referral.adapters.mail.smtp import SmtpMailer, TracedMailer
from referral.adapters.memory_cache import MemoryLookupCache
from referral.adapters.observability import tracing
from referral.adapters.observability.logs import StructlogSecurityLog
from referral.adapters.observability.samples import RequestMetrics
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import QuickClosingConnection, make_engine
from referral.adapters.postgres.exports import PostgresExporter
from referral.adapters.postgres.imports import PostgresImportStore
from referral.adapters.postgres.pool import DriverPool, make_driver_pool
from referral.adapters.postgres.primary import PrimaryConnector
from referral.adapters.postgres.read_model import PostgresReadModel
from referral.adapters.postgres.repositories.mail_reservations import PostgresMailReservations
from referral.adapters.postgres.tracing import TracedConnection
from referral.adapters.redis.client import RedisClient, TracedRedisClient
from referral.adapters.redis.lookup_cache import RedisLookupCache
from referral.adapters.redis.rate_limits import FixedWindowRateLimiter
from referral.adapters.security.access_tokens import JwtAccessTokenIssuer
from referral.adapters.security.keys import HmacFingerprinter, KeyRing, make_key_file
from referral.adapters.security.passwords import ArgonPasswordHasher, load_common_passwords
from referral.adapters.security.stored_secrets import AesGcmSecretCipher
from referral.adapters.security.subject_tokens import JwtSubjectTokenVerifier
from referral.adapters.security.unsubscribe_tokens import SignedUnsubscribeTokens
from referral.adapters.system import (
    RandomCodeGenerator,
    RandomTokenGenerator,
    SystemClock,
    SystemIdGenerator,
)
from referral.adapters.webhooks.host_resolver import HostResolver
from referral.adapters.webhooks.networks import WebhookNetworks
from referral.adapters.webhooks.urls import WebhookUrlPolicy
from referral.container.configuration import (
    database_url,
    mail_folder,
    process_count,
    rates_by_group,
)
from referral.core.ports.caching import LookupCache, RateLimiter
from referral.core.ports.delivery import Mailer, MailReservations
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.imports import ImportStore
from referral.core.ports.repositories import Database, ReadModel
from referral.core.ports.risk import DisposableDomains
from referral.core.ports.security import (
    AccessTokenIssuer,
    Fingerprinter,
    PasswordHasher,
    SecretCipher,
    TokenGenerator,
    UnsubscribeTokens,
)
from referral.core.ports.subject_tokens import IssuerKeys, SubjectTokenVerifier
from referral.core.ports.system import (
    Clock,
    CodeGenerator,
    HealthProbe,
    IdGenerator,
    LinkBuilder,
    QrCodeRenderer,
    SecurityLog,
)
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.core.ports.webhooks import UrlPolicy, WebhookSender
from referral.core.use_cases.events import PublishEvents, ReportExpiredCodes
from referral.core.use_cases.job_dispatch import DispatchJob
from referral.core.use_cases.signing_keys import RecordKeyChanges
from referral.core.use_cases.statistics import AddStatisticsChanges
from referral.core.use_cases.webhook_sending import EnqueueDueWebhooks
from referral.settings import Settings
from referral.web.oauth import SupportedGrants
from referral.web.public_urls import PublicUrls


class Adapters(Provider):
    """The adapter of each port. An unset URL selects the embedded adapter."""

    scope = Scope.APP
    settings = from_context(Settings)
    request_counts = from_context(RequestMetrics)
    stateless_adapters = (
        provide(SystemClock, provides=Clock)
        + provide(SystemIdGenerator, provides=IdGenerator)
        + provide(RandomCodeGenerator, provides=CodeGenerator)
        + provide(RandomTokenGenerator, provides=TokenGenerator)
        + provide(ValidatingEmailParser, provides=EmailParser)
        + provide(ListedDisposableDomains, provides=DisposableDomains)
        + provide(HmacFingerprinter, provides=Fingerprinter)
        + provide(AesGcmSecretCipher, provides=SecretCipher)
        + provide(StructlogSecurityLog, provides=SecurityLog)
        + provide(SegnoQrCodeRenderer, provides=QrCodeRenderer)
    )

    @provide
    def primary(self, settings: Settings) -> PrimaryConnector:
        return PrimaryConnector(database_url(settings))

    @provide
    async def engine(self, primary: PrimaryConnector) -> AsyncIterator[AsyncEngine]:
        kind = TracedConnection if tracing.is_enabled() else QuickClosingConnection
        engine = make_engine(primary, connection_class=kind)
        yield engine
        await engine.dispose()

    @provide(provides=AnyOf[PostgresDatabase, Database])
    def database(self, engine: AsyncEngine, fingerprints: Fingerprinter) -> PostgresDatabase:
        return PostgresDatabase(engine, fingerprints, PostgresJobQueue)

    @provide
    def import_store(self, primary: PrimaryConnector) -> ImportStore:
        return PostgresImportStore(primary)

    @provide
    def exporter(self, primary: PrimaryConnector) -> PostgresExporter:
        return PostgresExporter(primary)

    @provide
    async def pool(self, primary: PrimaryConnector) -> AsyncIterator[DriverPool]:
        kind = TracedConnection if tracing.is_enabled() else QuickClosingConnection
        async with make_driver_pool(primary, kind) as pool:
            yield pool

    @provide
    def read_model(self, pool: DriverPool) -> ReadModel:
        return PostgresReadModel(pool)

    @provide
    def mail_reservations(self, pool: DriverPool, fingerprints: Fingerprinter) -> MailReservations:
        return PostgresMailReservations(pool, fingerprints)

    @provide
    async def redis_client(self, settings: Settings) -> AsyncIterator[RedisClient | None]:
        if settings.redis_url is None:
            yield None
            return
        client = (TracedRedisClient if tracing.is_enabled() else RedisClient)(settings.redis_url)
        yield client
        await client.close()

    @provide
    def redis_cache(self, redis: RedisClient | None) -> RedisLookupCache | None:
        return RedisLookupCache(redis) if redis else None

    @provide(provides=AnyOf[MemoryLookupCache, LookupCache])
    def cache(self, redis_cache: RedisLookupCache | None) -> MemoryLookupCache:
        return MemoryLookupCache(redis_cache)

    @provide(provides=AnyOf[FixedWindowRateLimiter, RateLimiter])
    def rate_limiter(self, redis: RedisClient | None, settings: Settings) -> FixedWindowRateLimiter:
        return FixedWindowRateLimiter(rates_by_group(settings), redis, process_count())

    @provide(provides=AnyOf[ArgonPasswordHasher, PasswordHasher])
    async def password_hasher(self) -> AsyncIterator[ArgonPasswordHasher]:
        hasher = ArgonPasswordHasher()
        yield hasher
        hasher.close()

    @provide
    def key_ring(self, settings: Settings) -> KeyRing:
        if not settings.signing_key_file:
            make_key_file(settings.signing_key_files[0])
        return KeyRing(settings.signing_key_files)

    @provide
    def access_tokens(
        self, settings: Settings, key_ring: KeyRing, clock: Clock
    ) -> AccessTokenIssuer:
        minutes = settings.access_token_minutes
        return JwtAccessTokenIssuer(settings.public_url, key_ring, minutes, clock)

    @provide
    def subject_token_verifier(
        self, settings: Settings, issuer_keys: IssuerKeys | None, clock: Clock
    ) -> SubjectTokenVerifier:
        return JwtSubjectTokenVerifier(
            settings.trusted_issuers, settings.trusted_audience, issuer_keys, clock
        )

    @provide
    def common_passwords(self) -> Container[str]:
        return load_common_passwords()

    @provide
    def unsubscribe_tokens(self, key_ring: KeyRing) -> UnsubscribeTokens:
        return SignedUnsubscribeTokens(key_ring)

    @provide(provides=AnyOf[PublicUrls, LinkBuilder])
    def public_urls(self, settings: Settings) -> PublicUrls:
        return PublicUrls(
            settings.public_url,
            settings.landing_page_url,
            settings.confirm_page_url,
            settings.reset_page_url,
        )

    @provide
    def mail_renderer(
        self, settings: Settings, clock: Clock, qr_codes: QrCodeRenderer
    ) -> MailRenderer:
        sender = settings.mail_from
        sender_address = Address(sender.name, sender.local_part, sender.domain)
        return MailRenderer(sender_address, clock, qr_codes)

    @provide
    async def smtp_mailer(
        self, settings: Settings, mail_renderer: MailRenderer
    ) -> AsyncIterator[SmtpMailer | None]:
        if settings.smtp_url is None:
            yield None
            return
        mailer = SmtpMailer(settings.smtp_url, mail_renderer)
        yield mailer
        await mailer.close()

    @provide
    def mailer(
        self, settings: Settings, mail_renderer: MailRenderer, smtp_mailer: SmtpMailer | None
    ) -> Mailer:
        if smtp_mailer is None:
            return FileMailer(mail_folder(settings), mail_renderer)
        if tracing.is_enabled():
            return TracedMailer(smtp_mailer, settings.smtp_url or "")
        return smtp_mailer

    @provide
    def grants(self, settings: Settings) -> SupportedGrants:
        return SupportedGrants(password=settings.allows_password_grant)

    @provide
    def workers(
        self,
        primary: PrimaryConnector,
        dispatch_job: DispatchJob,
        periodic_tasks: PeriodicTaskRunner,
    ) -> WorkerGroup:
        return WorkerGroup(
            JobWorker(primary, dispatch_job),
            JobWorker(primary, dispatch_job, WEBHOOK_WORKER),
            periodic_tasks,
        )

    @provide
    def periodic_tasks(
        self,
        publish_events: PublishEvents,
        report_expired_codes: ReportExpiredCodes,
        enqueue_due_webhooks: EnqueueDueWebhooks,
        record_key_changes: RecordKeyChanges,
        add_statistics_changes: AddStatisticsChanges,
    ) -> PeriodicTaskRunner:
        return PeriodicTaskRunner(
            PeriodicTask("publish events", publish_events, interval=0.05, idle_interval=0.1),
            PeriodicTask("report expired codes", report_expired_codes, interval=5, idle_interval=5),
            PeriodicTask("add up statistics", add_statistics_changes, interval=1, idle_interval=5),
            # Also finds what a job that was ending has not seen.
            PeriodicTask(
                "enqueue due webhooks", enqueue_due_webhooks, interval=0.05, idle_interval=0.1
            ),
            PeriodicTask("record key changes", record_key_changes, interval=60, idle_interval=60),
        )

    @provide
    def webhook_networks(self, settings: Settings) -> WebhookNetworks:
        return WebhookNetworks(settings.webhook_networks)

    @provide
    def webhook_urls(self, networks: WebhookNetworks) -> UrlPolicy:
        return WebhookUrlPolicy(networks)

    @provide
    async def webhook_sender(
        self, networks: WebhookNetworks, clock: Clock
    ) -> AsyncIterator[WebhookSender]:
        """Needed where jobs run; other processes save the memory of the HTTP client."""
        from referral.adapters.webhooks.sender import HttpWebhookSender  # noqa: PLC0415 - memory

        sender = HttpWebhookSender(networks, HostResolver(), clock)
        yield sender
        await sender.close()


class NoThirdParties(Provider):
    """The ports of third parties when the settings name none."""

    scope = Scope.APP

    @provide
    def email_verifier(self) -> EmailVerifier | None:
        return None

    @provide
    def enrichment(self) -> Enrichment | None:
        return None

    @provide
    def issuer_keys(self) -> IssuerKeys | None:
        return None

    @provide
    def health_probes(self) -> tuple[HealthProbe, ...]:
        return ()
