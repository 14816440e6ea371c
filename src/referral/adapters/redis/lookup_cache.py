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
from referral.adapters.redis.client import RedisGone, RedisServer
from referral.core.entities.codes import Code

CACHE_TTL_SECONDS = 25.0
NEGATIVE_TTL_SECONDS = 10.0
MARK_SECONDS = 60
"""How long a mark stays, and a clear that failed is remembered: longer than any entry lives."""

CLEAR_BATCH_SIZE = 500
"""How many clears that failed are repeated in one trip."""

STORE = """
if (redis.call('GET', KEYS[2]) or '') == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
"""


class Entry(msgspec.Struct, array_like=True):
    """What was found, and until when that may be told."""

    until: float
    code: Code | None


class Fill(msgspec.Struct):
    """An entry on its way into Redis, and the mark from before its database was read."""

    key: bytes
    mark: bytes
    entry: Entry


class Held(NamedTuple):
    """What Redis holds about an address."""

    entry: bytes | None
    mark: bytes | None


class Uncleared(NamedTuple):
    """A clear that has not succeeded yet, and when nothing from before it is left to be cleared."""

    mark: bytes
    until: float


ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(Entry)


class RedisCache:
    """See the port `Cache`. Requests share round trips and none of them owns a connection, so
    that one which is cancelled cannot leave its answer to another.
    """

    def __init__(self, server: RedisServer, now: Callable[[], float] = time.time) -> None:
        """Take the server, and a clock that those of other machines agree with."""
        self._server = server
        self._now = now
        self._hits = self._misses = 0
        self._uncleared: dict[bytes, Uncleared] = {}
        self._reads: RequestCoalescer[bytes, Held] = RequestCoalescer(self._read)
        self._fills: BatchQueue[Fill] = BatchQueue(self._store)
        server.when_back(self._clear_again)

    async def fetch(
        self, email_key: str, find: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """See the port."""
        key, began = make_key(email_key), self._now()
        if not self._server.answers or self._is_uncleared(key, began):
            return await find()
        try:
            held = await self._reads.ask(key)
        except RedisGone:
            return await find()
        entry = _decode(held.entry)
        if entry is None or entry.until <= began:
            self._misses += 1
            entry = Entry(0, await find())
            self._fill(key, held.mark, entry, began)
        else:
            self._hits += 1
        return entry.code

    def recall(self, email_key: str) -> Code | None:  # noqa: ARG002
        """See the port. The process itself remembers nothing."""
        return None

    async def clear(self, email_key: str) -> bool:
        """See the port. What cannot be cleared now is not read here, and cleared later."""
        key, now = make_key(email_key), self._now()
        while self._uncleared and next(iter(self._uncleared.values())).until <= now:
            del self._uncleared[next(iter(self._uncleared))]
        self._uncleared.pop(key, None)
        own = self._uncleared[key] = Uncleared(secrets.token_bytes(16), now + MARK_SECONDS)
        with suppress(RedisGone):
            await self._server.ask(lambda client: self._mark(client, [(key, own)]))
            return True
        return False

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield Sample("referral_cache_lookups", ("redis", "hit"), self._hits)
        yield Sample("referral_cache_lookups", ("redis", "miss"), self._misses)

    def _is_uncleared(self, key: bytes, now: float) -> bool:
        uncleared = self._uncleared.get(key)
        return uncleared is not None and uncleared.until > now

    def _fill(self, key: bytes, mark: bytes | None, entry: Entry, began: float) -> None:
        entry.until = began + (NEGATIVE_TTL_SECONDS if entry.code is None else CACHE_TTL_SECONDS)
        if entry.code is not None:
            entry.until = min(entry.until, entry.code.expires_at.timestamp())
        if entry.until > self._now():
            self._fills.add(Fill(key, mark or b"", entry))

    async def _read(self, keys: list[bytes]) -> list[Held]:
        names = [name for key in keys for name in (key, mark_of(key))]
        answer = await self._server.ask(lambda client: client.mget(names))
        held = cast("list[bytes | None]", answer)
        return [Held(*pair) for pair in zip(held[::2], held[1::2], strict=True)]

    async def _store(self, batch: list[Fill]) -> None:
        async def store(client: Redis) -> None:
            pipe = client.pipeline(transaction=False)
            for fill in batch:
                value, ends = ENCODER.encode(fill.entry), int(fill.entry.until * 1000)
                pipe.eval(STORE, 2, fill.key, mark_of(fill.key), fill.mark, value, ends)
            await pipe.execute(raise_on_error=False)

        with suppress(RedisGone):
            await self._server.ask(store)

    async def _clear_again(self) -> None:
        """Repeat what failed, and what fails meanwhile, before anybody is told from Redis again."""
        while self._uncleared:
            await self._mark(
                self._server.client, list(islice(self._uncleared.items(), CLEAR_BATCH_SIZE))
            )

    async def _mark(self, client: Redis, some: list[tuple[bytes, Uncleared]]) -> None:
        pipe = client.pipeline(transaction=False)
        for key, one in some:
            # In this order nobody finds the entry gone and the mark from before.
            pipe.set(mark_of(key), one.mark, ex=MARK_SECONDS)
            pipe.delete(key)
        await pipe.execute()
        for key, one in some:
            if self._uncleared.get(key) is one:
                del self._uncleared[key]


def make_key(email_key: str) -> bytes:
    """Return the key of an address, which does not show it."""
    return b"referral:code:" + hashlib.sha256(email_key.encode()).digest()[:16]


def mark_of(key: bytes) -> bytes:
    """Return the key of the mark that belongs to an entry's."""
    return key + b":mark"


def _decode(held: bytes | None) -> Entry | None:
    if held is None:
        return None
    try:
        return DECODER.decode(held)
    except (msgspec.DecodeError, UnicodeError):
        return None
