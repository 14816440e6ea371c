"""Look-ups remembered in Redis, where all processes find them.

An address has two keys: one for what was found, and one for a mark that it was cleared, which no
other mark equals. Who finds nothing reads the database and stores that only if the mark is still
the one from before: had a change been cleared meanwhile, there would be another. Every entry also
names the time at which it ends, counted from before its database was read, so that one which is
written late, or was not cleared because Redis was gone, is never read after `FLUSH_SECONDS`.
"""

import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from referral.adapters.batching import BatchQueue, RequestCoalescer
from referral.adapters.observability.samples import Sample
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.core.entities.codes import Code

CACHE_TTL_SECONDS = 25.0
NEGATIVE_TTL_SECONDS = 10.0
MARKER_TTL_SECONDS = 60
"""How long a mark stays, and a clear that failed is remembered: longer than any entry lives."""

INVALIDATION_BATCH_SIZE = 500
"""How many clears that failed are repeated in one trip."""

STORE_SCRIPT = """
if (redis.call('GET', KEYS[2]) or '') == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
"""


class CacheEntry(msgspec.Struct, array_like=True):
    """What was found, and until when that may be told."""

    expires_at: float
    code: Code | None


class PendingWrite(msgspec.Struct):
    """An entry on its way into Redis, and the mark from before its database was read."""

    key: bytes
    marker: bytes
    entry: CacheEntry


class StoredValues(NamedTuple):
    """What Redis holds about an address."""

    entry: bytes | None
    marker: bytes | None


class PendingInvalidation(NamedTuple):
    """A clear that has not succeeded yet, and when nothing from before it is left to be cleared."""

    marker: bytes
    expires_at: float


ENTRY_ENCODER = msgspec.msgpack.Encoder()
ENTRY_DECODER = msgspec.msgpack.Decoder(CacheEntry)


class RedisLookupCache:
    """See the port `Cache`. Requests share round trips and none of them owns a connection, so
    that one which is cancelled cannot leave its answer to another.
    """

    def __init__(self, client: RedisClient, now: Callable[[], float] = time.time) -> None:
        """Take the server, and a clock that those of other machines agree with."""
        self._client = client
        self._now = now
        self._hits = self._misses = 0
        self._pending_invalidations: dict[bytes, PendingInvalidation] = {}
        self._reads: RequestCoalescer[bytes, StoredValues] = RequestCoalescer(self._read)
        self._writes: BatchQueue[PendingWrite] = BatchQueue(self._store)
        client.add_recovery_hook(self._retry_invalidations)

    async def get_or_load(
        self, email_key: str, load: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """See the port."""
        key, started_at = entry_key(email_key), self._now()
        if not self._client.is_available or self._is_invalidation_pending(key, started_at):
            return await load()
        try:
            stored = await self._reads.submit(key)
        except RedisUnavailable:
            return await load()
        entry = _decode(stored.entry)
        if entry is None or entry.expires_at <= started_at:
            self._misses += 1
            entry = CacheEntry(0, await load())
            self._schedule_write(key, stored.marker, entry, started_at)
        else:
            self._hits += 1
        return entry.code

    def find_cached(self, email_key: str) -> Code | None:  # noqa: ARG002
        """See the port. The process itself remembers nothing."""
        return None

    async def invalidate(self, email_key: str) -> bool:
        """See the port. What cannot be cleared now is not read here, and cleared later."""
        key, now = entry_key(email_key), self._now()
        while (
            self._pending_invalidations
            and next(iter(self._pending_invalidations.values())).expires_at <= now
        ):
            del self._pending_invalidations[next(iter(self._pending_invalidations))]
        self._pending_invalidations.pop(key, None)
        invalidation = self._pending_invalidations[key] = PendingInvalidation(
            secrets.token_bytes(16), now + MARKER_TTL_SECONDS
        )
        with suppress(RedisUnavailable):
            await self._client.execute(
                lambda client: self._write_markers(client, [(key, invalidation)])
            )
            return True
        return False

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield Sample("referral_cache_lookups", ("redis", "hit"), self._hits)
        yield Sample("referral_cache_lookups", ("redis", "miss"), self._misses)

    def _is_invalidation_pending(self, key: bytes, now: float) -> bool:
        invalidation = self._pending_invalidations.get(key)
        return invalidation is not None and invalidation.expires_at > now

    def _schedule_write(
        self, key: bytes, marker: bytes | None, entry: CacheEntry, started_at: float
    ) -> None:
        entry.expires_at = started_at + (
            NEGATIVE_TTL_SECONDS if entry.code is None else CACHE_TTL_SECONDS
        )
        if entry.code is not None:
            entry.expires_at = min(entry.expires_at, entry.code.expires_at.timestamp())
        if entry.expires_at > self._now():
            self._writes.add(PendingWrite(key, marker or b"", entry))

    async def _read(self, keys: list[bytes]) -> list[StoredValues]:
        names = [name for key in keys for name in (key, marker_key(key))]
        reply = await self._client.execute(lambda client: client.mget(names))
        values = cast("list[bytes | None]", reply)
        return [StoredValues(*pair) for pair in zip(values[::2], values[1::2], strict=True)]

    async def _store(self, batch: list[PendingWrite]) -> None:
        async def store(client: Redis) -> None:
            pipe = client.pipeline(transaction=False)
            for write in batch:
                value, expires_at = (
                    ENTRY_ENCODER.encode(write.entry),
                    int(write.entry.expires_at * 1000),
                )
                pipe.eval(
                    STORE_SCRIPT,
                    2,
                    write.key,
                    marker_key(write.key),
                    write.marker,
                    value,
                    expires_at,
                )
            await pipe.execute(raise_on_error=False)

        with suppress(RedisUnavailable):
            await self._client.execute(store)

    async def _retry_invalidations(self) -> None:
        """Repeat what failed, and what fails meanwhile, before anybody is told from Redis again."""
        while self._pending_invalidations:
            await self._write_markers(
                self._client.client,
                list(islice(self._pending_invalidations.items(), INVALIDATION_BATCH_SIZE)),
            )

    async def _write_markers(
        self, client: Redis, batch: list[tuple[bytes, PendingInvalidation]]
    ) -> None:
        pipe = client.pipeline(transaction=False)
        for key, invalidation in batch:
            # In this order nobody finds the entry gone and the mark from before.
            pipe.set(marker_key(key), invalidation.marker, ex=MARKER_TTL_SECONDS)
            pipe.delete(key)
        await pipe.execute()
        for key, invalidation in batch:
            if self._pending_invalidations.get(key) is invalidation:
                del self._pending_invalidations[key]


def entry_key(email_key: str) -> bytes:
    """Return the key of an address, which does not show it."""
    return b"referral:code:" + hashlib.sha256(email_key.encode()).digest()[:16]


def marker_key(key: bytes) -> bytes:
    """Return the key of the mark that belongs to an entry's."""
    return key + b":mark"


def _decode(encoded: bytes | None) -> CacheEntry | None:
    if encoded is None:
        return None
    try:
        return ENTRY_DECODER.decode(encoded)
    except (msgspec.DecodeError, UnicodeError):
        return None
