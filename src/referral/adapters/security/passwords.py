"""argon2id in threads of its own, so that a burst of logins does not slow other requests."""

import asyncio
import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import hash_secret_raw

from referral.adapters.observability.samples import DurationHistogram, Sample
from referral.core.errors import Unavailable

T = TypeVar("T")

ARGON2 = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
"""OWASP's Password Storage Cheat Sheet: argon2id with m=19456 KiB, t=2, p=1."""

DECOY_HASH = ARGON2.hash("the hash that an unknown address is compared with")

VERIFY_COST_KIB = ARGON2.time_cost * ARGON2.memory_cost
"""What comparing with a new hash, or with the decoy, takes: passes over so many KiB."""

MIN_MEMORY_KIB = 8
"""Less KiB argon2 cannot take."""

COMMON_PASSWORDS_FILE = Path(__file__).parent / "common_passwords.txt.gz"
"""Whose list it is stands in `common_passwords.LICENSE`."""

HASH_THREADS = 2
MAX_QUEUED_HASHES = 400
HASH_THREAD_NICENESS = 10


class ArgonPasswordHasher:
    """Hashes with a bounded queue; one that is full answers with `Unavailable`."""

    def __init__(self) -> None:
        """Start no thread before the first hash."""
        self._pool = ThreadPoolExecutor(HASH_THREADS, "argon2", initializer=lower_thread_priority)
        self._queued = self._refused = 0
        self._queue_times = DurationHistogram()

    async def hash(self, password: str) -> str:
        """See the port."""
        return await self._run_in_pool(lambda: ARGON2.hash(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """See the port."""
        matches = await self._run_in_pool(lambda: _matches(password, password_hash or DECOY_HASH))
        return matches and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """See the port."""
        return ARGON2.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Drop what waits and end the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield Sample("referral_hashes_waiting", (), self._queued)
        yield Sample("referral_hashes_refused", (), self._refused)
        yield Sample("referral_hash_wait_seconds", (), self._queue_times.histogram())

    async def _run_in_pool(self, function: Callable[[], T]) -> T:
        if self._queued >= MAX_QUEUED_HASHES:
            self._refused += 1
            detail = "Too many people are logging in. Try again in a few seconds."
            raise Unavailable(detail)
        self._queued += 1
        queued_at = time.perf_counter()
        try:
            started_at, result = await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: (time.perf_counter(), function())
            )
            self._queue_times.observe(started_at - queued_at)
            return result
        finally:
            self._queued -= 1


def load_common_passwords() -> frozenset[str]:
    """Return the 11,000 most common passwords of at least eight characters, in lower case."""
    return frozenset(gzip.decompress(COMMON_PASSWORDS_FILE.read_bytes()).decode().splitlines())


def lower_thread_priority() -> None:
    """Leave the processor to those who answer requests."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASH_THREAD_NICENESS)


def _matches(password: str, hashed: str) -> bool:
    try:
        return ARGON2.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
    finally:
        _equalize_time(hashed)


def _equalize_time(hashed: str) -> None:
    """Do the work that comparing with an older hash lacks, or its time would tell the account from
    an unknown address. A hash that takes more than a new one is not evened out.
    """
    memory_kib = (VERIFY_COST_KIB - _cost_kib(hashed)) // ARGON2.time_cost
    if memory_kib >= MIN_MEMORY_KIB:
        hash_secret_raw(b"", bytes(16), ARGON2.time_cost, memory_kib, 1, ARGON2.hash_len, Type.ID)


def _cost_kib(hashed: str) -> int:
    try:
        parameters = extract_parameters(hashed)
    except InvalidHashError:
        return 0
    return parameters.time_cost * parameters.memory_cost
