"""How Redis is reached: one server, the primary that Sentinels name, or a Cluster."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

Topology = Literal["server", "sentinel", "cluster"]

DEFAULT_PORTS: dict[Topology, int] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
SCHEMES: dict[str, Topology] = {
    "redis": "server",
    "rediss": "server",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}

SOCKET_TIMEOUT_SECONDS = 0.5
"""redis-py's own limit of a connect, a DNS query and a reply."""

MAX_CONNECTIONS = 10


class WrongTopologyError(Exception):
    """A server answered, but it is not what the URL says; the message names it."""


@dataclass(frozen=True)
class RedisLocation:
    """A parsed URL; `options` are connection arguments of redis-py, such as the password."""

    topology: Topology
    hosts: tuple[tuple[str, int], ...]
    service_name: str
    options: dict[str, Any] = field(repr=False)


def parse_redis_url(url: str) -> RedisLocation:
    """Parse `REFERRAL_REDIS_URL`; raises `ValueError` with a reason that has no password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("must be a valid URL") from None
    topology = SCHEMES.get(parts.scheme)
    if topology is None:
        names = " or ".join(f"{scheme}://" for scheme in SCHEMES)
        message = f"must be a URL that begins with {names}"
        raise ValueError(message)
    user, _, host_list = parts.netloc.rpartition("@")
    hosts = _parse_hosts(host_list, DEFAULT_PORTS[topology])
    service_name, _, database = parts.path.strip("/").rpartition("/")
    if topology == "sentinel" and not service_name:
        service_name, database = database, ""
    _check_parts(topology, hosts, service_name, database)
    scheme = "rediss" if parts.scheme.startswith("rediss") else "redis"
    try:
        options = parse_url(urlunsplit((scheme, f"{user}@h", database, parts.query, "")))
    except ValueError:
        raise ValueError("must have valid options after the question mark") from None
    return RedisLocation(topology, hosts, service_name, dict(options) | {"ssl": scheme == "rediss"})


def _check_parts(
    topology: Topology, hosts: Sequence[object], service_name: str, database: str
) -> None:
    if topology == "sentinel" and not service_name:
        raise ValueError("must name the primary, as in redis+sentinel://host-1,host-2/name")
    if topology == "cluster" and (database or service_name):
        raise ValueError("must have no path: a Redis Cluster has one database and no name")
    if topology == "server" and (len(hosts) > 1 or service_name):
        raise ValueError(
            "must name one host and a database number; for several hosts use redis+sentinel:// "
            "or redis+cluster://"
        )
    if not re.fullmatch(r"\d{0,4}", database):
        raise ValueError("must have a number as its database")


def make_redis(location: RedisLocation) -> Redis:
    """Make the client; it connects at the first command, and finds a new primary by itself."""
    options = _connection_options(location) | {
        # One retry on a new connection: the server may have closed an idle one.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        "max_connections": MAX_CONNECTIONS,
    }
    if location.topology == "cluster":
        nodes = [ClusterNode(host, port) for host, port in location.hosts]
        # With its default of 5, every fifth redirection closes the connections of other commands.
        cluster = RedisCluster(
            startup_nodes=nodes, reinitialize_steps=0, require_full_coverage=False, **options
        )
        return cast("Redis", cluster)
    if location.topology == "sentinel":
        make_sentinels: Any = Sentinel  # has no annotations
        sentinels = make_sentinels(location.hosts, sentinel_kwargs=_sentinel_options(location))
        return cast("Redis", sentinels.master_for(location.service_name, **options))
    host, port = location.hosts[0]
    connection_class = SSLConnection if options.pop("ssl") else Connection
    pool = BlockingConnectionPool(
        host=host, port=port, connection_class=connection_class, timeout=None, **options
    )
    return Redis(connection_pool=pool)


async def close_redis(redis: Redis) -> None:
    """Close the connections, also those to Sentinels."""
    pool = getattr(redis, "connection_pool", None)
    await redis.aclose()
    if pool is not None:
        await pool.aclose()
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


async def check_topology(location: RedisLocation) -> None:
    """Raise `WrongTopologyError` if a host that answers is no Sentinel, or no part of a Cluster, or
    if no Sentinel that answers knows the name. Hosts that do not answer are ignored.
    """
    if location.topology == "server":
        return
    is_unknown = False
    for host, port in location.hosts:
        try:
            if await _is_as_configured(location, host, port):
                return
            is_unknown = True
        except ResponseError as error:
            kind = "a Sentinel" if location.topology == "sentinel" else "a node of a Redis Cluster"
            message = f"{host}:{port} is not {kind}: {error}"
            raise WrongTopologyError(message) from error
        except (RedisError, OSError, TimeoutError):
            continue
    if is_unknown:
        message = f"no Sentinel that answers knows the name '{location.service_name}'"
        raise WrongTopologyError(message)


async def _is_as_configured(location: RedisLocation, host: str, port: int) -> bool:
    """Ask one host; a Sentinel answers None for an unknown name."""
    is_sentinel = location.topology == "sentinel"
    options = _sentinel_options(location) if is_sentinel else _connection_options(location)
    async with Redis(host=host, port=port, **options) as client:
        execute: Any = client.execute_command  # has no annotations
        if not is_sentinel:
            await execute("CLUSTER INFO")
            return True
        reply = await execute("SENTINEL GET-MASTER-ADDR-BY-NAME", location.service_name)
        return reply is not None


def _connection_options(location: RedisLocation) -> dict[str, Any]:
    """Return the options of connections to Redis."""
    ignored = ("host", "connection_class")
    options = {name: value for name, value in location.options.items() if name not in ignored}
    return options | {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
    }


def _sentinel_options(location: RedisLocation) -> dict[str, Any]:
    """Return the options of connections to Sentinels: not the user and password of Redis."""
    tls = {name: value for name, value in location.options.items() if name.startswith("ssl")}
    return tls | {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }


def _parse_hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in text.split(","):
        try:
            parsed = urlsplit(f"//{part.strip()}")
            port = default_port if parsed.port is None else parsed.port
        except ValueError:
            raise ValueError("must have a port number from 0 to 65535") from None
        if not parsed.hostname:
            raise ValueError("must have a host")
        hosts.append((parsed.hostname, port))
    return tuple(hosts)
