"""The lookup cache in Redis, shared by all processes.

Each e-mail address has two keys: the entry, and a marker with a random value that an invalidation
sets. After a miss, the result of the database is stored only if the marker has not changed since:
an invalidation in between would have changed it. An entry also contains its expiry, counted from
before the database was read. So an entry that was written late, or that was not invalidated because
Redis did not answer, is never returned after `CACHE_TTL_SECONDS`.
"""

import hashlib
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis

from referral.adapters.batching import BatchQueue, RequestCoalescer
from referral.adapters.observability.samples import Sample
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.core.entities.codes import Code

CACHE_TTL_SECONDS = 25.0
NEGATIVE_TTL_SECONDS = 10.0
MARKER_TTL_SECONDS = 60
"""Markers and pending invalidations outlive every entry."""

INVALIDATION_BATCH_SIZE = 500
"""The number of pending invalidations per round trip."""

STORE_SCRIPT = """
if (redis.call('GET', KEYS[2]) or '') == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
"""


class CacheEntry(msgspec.Struct, array_like=True):
    """A cached code, or None for "no code", and the entry's expiry in seconds since 1970."""

    expires_at: float
    code: Code | None


class PendingWrite(msgspec.Struct):
    """An entry to store, and the marker from before the database was read."""

    key: bytes
    marker: bytes
    entry: CacheEntry


class StoredValues(NamedTuple):
    """The values of the two keys of an address."""

    entry: bytes | None
    marker: bytes | None


class PendingInvalidation(NamedTuple):
    """An invalidation that Redis has not confirmed; when it expires, so have all older entries."""

    marker: bytes
    expires_at: float


ENTRY_ENCODER = msgspec.msgpack.Encoder()
ENTRY_DECODER = msgspec.msgpack.Decoder(CacheEntry)


class RedisLookupCache:
    """A cache whose requests share round trips.

    No request owns a connection, so a cancelled request cannot leave its reply to another one.
    """

    def __init__(self, client: RedisClient, now: Callable[[], float] = time.time) -> None:
        """`now` returns seconds since 1970, so that the processes of all machines agree."""
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
        """Return the entry in Redis, or load it and store it in the background."""
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
        """Return None: this cache keeps nothing in the process."""
        return None

    async def invalidate(self, email_key: str) -> bool:
        """Invalidate the entry; this process does not read it before Redis has confirmed that."""
        key, now, pending = entry_key(email_key), self._now(), self._pending_invalidations
        while pending and next(iter(pending.values())).expires_at <= now:
            del pending[next(iter(pending))]
        pending.pop(key, None)
        own = pending[key] = PendingInvalidation(secrets.token_bytes(16), now + MARKER_TTL_SECONDS)
        with suppress(RedisUnavailable):
            await self._client.execute(lambda redis: self._write_markers(redis, [(key, own)]))
            return True
        return False

    def samples(self) -> Iterator[Sample]:
        """Return the numbers of hits and misses."""
        yield Sample("referral_cache_lookups", ("redis", "hit"), self._hits)
        yield Sample("referral_cache_lookups", ("redis", "miss"), self._misses)

    def _is_invalidation_pending(self, key: bytes, now: float) -> bool:
        invalidation = self._pending_invalidations.get(key)
        return invalidation is not None and invalidation.expires_at > now

    def _schedule_write(
        self, key: bytes, marker: bytes | None, entry: CacheEntry, started_at: float
    ) -> None:
        if entry.code is None:
            entry.expires_at = started_at + NEGATIVE_TTL_SECONDS
        else:
            code_expires_at = entry.code.expires_at.timestamp()
            entry.expires_at = min(started_at + CACHE_TTL_SECONDS, code_expires_at)
        if entry.expires_at > self._now():
            self._writes.add(PendingWrite(key, marker or b"", entry))

    async def _read(self, keys: list[bytes]) -> list[StoredValues]:
        names = [name for key in keys for name in (key, marker_key(key))]
        values = await self._client.get_many(names)
        return [StoredValues(*pair) for pair in zip(values[::2], values[1::2], strict=True)]

    async def _store(self, batch: list[PendingWrite]) -> None:
        async def store(redis: Redis) -> None:
            pipe = redis.pipeline(transaction=False)
            for write in batch:
                keys = (write.key, marker_key(write.key))
                value, expires_ms = ENTRY_ENCODER.encode(write.entry), write.entry.expires_at * 1000
                pipe.eval(STORE_SCRIPT, len(keys), *keys, write.marker, value, int(expires_ms))
            await pipe.execute(raise_on_error=False)

        with suppress(RedisUnavailable):
            await self._client.execute(store)

    async def _retry_invalidations(self) -> None:
        """Send all pending invalidations, also new ones, before Redis is read again."""
        while pending := self._pending_invalidations:
            batch = list(islice(pending.items(), INVALIDATION_BATCH_SIZE))
            await self._write_markers(self._client.redis, batch)

    async def _write_markers(
        self, redis: Redis, batch: list[tuple[bytes, PendingInvalidation]]
    ) -> None:
        pipe = redis.pipeline(transaction=False)
        for key, invalidation in batch:
            # The marker first: no reader may get the old marker without the entry.
            pipe.set(marker_key(key), invalidation.marker, ex=MARKER_TTL_SECONDS)
            pipe.delete(key)
        await pipe.execute()
        for key, invalidation in batch:
            if self._pending_invalidations.get(key) is invalidation:
                del self._pending_invalidations[key]


def entry_key(email_key: str) -> bytes:
    """Return the key of an address's entry: a digest, which hides the address.

    Braces make a Cluster store the entry and its marker on one node. The digest is in Base64: a
    brace in it would end the part that counts.
    """
    digest = urlsafe_b64encode(hashlib.sha256(email_key.encode()).digest()[:16])
    return b"referral:code:{" + digest.rstrip(b"=") + b"}"


def marker_key(key: bytes) -> bytes:
    """Return the key of an entry's marker."""
    return key + b":mark"


def _decode(encoded: bytes | None) -> CacheEntry | None:
    if encoded is None:
        return None
    try:
        return ENTRY_DECODER.decode(encoded)
    except (msgspec.DecodeError, UnicodeError):
        return None
