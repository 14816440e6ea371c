"""The metrics and the health checks, with the adapters that they read."""

from dishka import AnyOf, Provider, Scope, provide

from referral.adapters.jobs.metrics import QueueMetrics
from referral.adapters.mail.smtp import SmtpMailer
from referral.adapters.memory_cache import MemoryLookupCache
from referral.adapters.observability.prometheus import PrometheusMetrics
from referral.adapters.observability.samples import MetricSource, RequestMetrics
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.pool import DriverPool
from referral.adapters.redis.client import RedisClient
from referral.adapters.redis.lookup_cache import RedisLookupCache
from referral.adapters.redis.rate_limits import FixedWindowRateLimiter
from referral.adapters.security.passwords import ArgonPasswordHasher
from referral.container.configuration import metrics_folder, process_count
from referral.core.ports.subject_tokens import IssuerKeys
from referral.core.ports.system import HealthProbe, Metrics
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.core.use_cases.health import CheckComponents, CheckHealth
from referral.settings import Settings


class Observability(Provider):
    """Metrics and health checks."""

    scope = Scope.APP

    @provide
    def metric_sources(
        self,
        requests: RequestMetrics,
        database: PostgresDatabase,
        pool: DriverPool,
        cache: MemoryLookupCache,
        redis: RedisClient | None,
        redis_cache: RedisLookupCache | None,
        limits: FixedWindowRateLimiter,
        password_hasher: ArgonPasswordHasher,
        verifier: EmailVerifier | None,
        enrichment: Enrichment | None,
        issuer_keys: IssuerKeys | None,
    ) -> tuple[MetricSource, ...]:
        sources = (requests, database, pool, cache, redis, redis_cache, limits, password_hasher)
        return tuple(
            source
            for source in (*sources, verifier, enrichment, issuer_keys)
            if isinstance(source, MetricSource)
        )

    @provide(provides=AnyOf[PrometheusMetrics, Metrics])
    def metrics(
        self, sources: tuple[MetricSource, ...], database: PostgresDatabase, settings: Settings
    ) -> PrometheusMetrics:
        folder = metrics_folder(settings) if process_count() > 1 else None
        return PrometheusMetrics(sources, QueueMetrics(database), folder)

    @provide
    def check_health(self, database: PostgresDatabase, redis: RedisClient | None) -> CheckHealth:
        return CheckHealth(database, (redis,) if redis else ())

    @provide
    def check_parts(
        self,
        database: PostgresDatabase,
        redis: RedisClient | None,
        smtp_mailer: SmtpMailer | None,
        third_parties: tuple[HealthProbe, ...],
    ) -> CheckComponents:
        own_probes: tuple[HealthProbe | None, ...] = (database, redis, smtp_mailer)
        return CheckComponents(
            (*(probe for probe in own_probes if probe is not None), *third_parties)
        )
