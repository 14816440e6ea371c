"""The metrics, and the parts that they are read from."""

from dishka import (
    AnyOf,
    Provider,
    Scope,
    provide,
)

from referral.adapters.in_memory import MemoryCache
from referral.adapters.jobs.metrics import QueueFigures
from referral.adapters.observability.prometheus import ProcessMetrics
from referral.adapters.observability.samples import MetricSource, RequestCounts
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.pool import DriverPool
from referral.adapters.redis.client import RedisServer
from referral.adapters.redis.lookup_cache import RedisCache
from referral.adapters.redis.rate_limits import CountedLimits
from referral.adapters.security.passwords import ArgonPasswordHasher
from referral.container.configuration import (
    metrics_folder,
    processes,
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
