"""The metrics, and the parts that they are read from."""

from dishka import (
    AnyOf,
    Provider,
    Scope,
    provide,
)

from referral.adapters.in_memory import MemoryLookupCache
from referral.adapters.jobs.metrics import QueueMetrics
from referral.adapters.observability.prometheus import PrometheusMetrics
from referral.adapters.observability.samples import MetricSource, RequestMetrics
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.pool import DriverPool
from referral.adapters.redis.client import RedisClient
from referral.adapters.redis.lookup_cache import RedisLookupCache
from referral.adapters.redis.rate_limits import FixedWindowRateLimiter
from referral.adapters.security.passwords import ArgonPasswordHasher
from referral.container.configuration import (
    metrics_folder,
    process_count,
)
from referral.core.ports.system import (
    Metrics,
)
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.settings import Settings


class Observability(Provider):
    """How the service does."""

    scope = Scope.APP

    @provide
    def metric_sources(
        self,
        requests: RequestMetrics,
        database: PostgresDatabase,
        pool: DriverPool,
        memory: MemoryLookupCache,
        redis: RedisClient | None,
        redis_cache: RedisLookupCache | None,
        limits: FixedWindowRateLimiter,
        password_hasher: ArgonPasswordHasher,
        verifier: EmailVerifier | None,
        enrichment: Enrichment | None,
    ) -> tuple[MetricSource, ...]:
        sources = (requests, database, pool, memory, redis, redis_cache, limits, password_hasher)
        return tuple(
            part for part in (*sources, verifier, enrichment) if isinstance(part, MetricSource)
        )

    @provide(provides=AnyOf[PrometheusMetrics, Metrics])
    def metrics(
        self, sources: tuple[MetricSource, ...], database: PostgresDatabase, settings: Settings
    ) -> PrometheusMetrics:
        folder = metrics_folder(settings) if process_count() > 1 else None
        return PrometheusMetrics(sources, QueueMetrics(database), folder)
