"""Look-ups remembered in Redis, where all processes find them.

An address has one key. It holds what was found, or a mark that it was cleared, which no other mark
equals. Who finds neither reads the database and stores that only if the key still holds what it
held before: had a change been cleared meanwhile, there would be another mark. Every entry also
names the time at which it ends, counted from before its database was read, so that one which is
written late, or was not cleared because Redis was gone, is never read after `SECONDS`.
"""

import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import cast

import msgspec
from redis.asyncio import Redis

from referral.adapters.batches import Batches, Trips
from referral.adapters.measures import Measure
from referral.adapters.redis import RedisGone, RedisServer
from referral.core.model import Code

SECONDS = 25.0
SECONDS_UNKNOWN = 10.0
MARK_SECONDS = 60
"""How long a mark stays: longer than any entry that it is to keep out."""

STORE = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
"""


class Entry(msgspec.Struct, array_like=True):
    """What was found, and until when that may be told."""

    until: float
    code: Code | None


class Fill(msgspec.Struct):
    """An entry on its way into Redis, and what its key held before."""

    key: bytes
    held: bytes
    entry: Entry


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
        self._uncleared: dict[bytes, bytes] = {}
        self._reads: Trips[bytes, bytes | None] = Trips(self._read)
        self._fills: Batches[Fill] = Batches(self._store)
        server.when_back(self._clear_again)

    async def fetch(
        self, email_key: str, find: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """See the port."""
        key, began = make_key(email_key), self._now()
        if not self._server.answers or key in self._uncleared:
            return await find()
        try:
            held = await self._reads.ask(key)
        except RedisGone:
            return await find()
        entry = _decode(held)
        if entry is None or entry.until <= began:
            self._misses += 1
            entry = Entry(0, await find())
            self._fill(key, held, entry, began)
        else:
            self._hits += 1
        return entry.code

    def recall(self, email_key: str) -> Code | None:  # noqa: ARG002
        """See the port. The process itself remembers nothing."""
        return None

    async def clear(self, email_key: str) -> bool:
        """See the port. What cannot be cleared now is not read here, and cleared later."""
        key, mark = make_key(email_key), b"-" + secrets.token_bytes(16)
        self._uncleared[key] = mark
        with suppress(RedisGone):
            await self._server.ask(lambda client: client.set(key, mark, ex=MARK_SECONDS))
            if self._uncleared.get(key) == mark:
                del self._uncleared[key]
            return True
        return False

    def measures(self) -> Iterator[Measure]:
        """See `Measured`."""
        yield Measure("referral_cache_lookups", ("redis", "hit"), self._hits)
        yield Measure("referral_cache_lookups", ("redis", "miss"), self._misses)

    def _fill(self, key: bytes, held: bytes | None, entry: Entry, began: float) -> None:
        entry.until = began + (SECONDS_UNKNOWN if entry.code is None else SECONDS)
        if entry.code is not None:
            entry.until = min(entry.until, entry.code.expires_at.timestamp())
        if entry.until > self._now():
            self._fills.add(Fill(key, held or b"", entry))

    async def _read(self, keys: list[bytes]) -> list[bytes | None]:
        held = await self._server.ask(lambda client: client.mget(keys))
        return cast("list[bytes | None]", held)

    async def _store(self, batch: list[Fill]) -> None:
        async def store(client: Redis) -> None:
            pipe = client.pipeline(transaction=False)
            for fill in batch:
                value = b"+" + ENCODER.encode(fill.entry)
                pipe.eval(STORE, 1, fill.key, fill.held, value, int(fill.entry.until * 1000))
            await pipe.execute(raise_on_error=False)

        with suppress(RedisGone):
            await self._server.ask(store)

    async def _clear_again(self) -> None:
        for key, mark in list(self._uncleared.items()):
            await self._server.client.set(key, mark, ex=MARK_SECONDS)
            if self._uncleared.get(key) == mark:
                del self._uncleared[key]


def make_key(email_key: str) -> bytes:
    """Return the key of an address, which does not show it."""
    return b"referral:code:" + hashlib.sha256(email_key.encode()).digest()[:16]


def _decode(held: bytes | None) -> Entry | None:
    if held is None or not held.startswith(b"+"):
        return None
    try:
        return DECODER.decode(held[1:])
    except (msgspec.DecodeError, UnicodeError):
        return None
