"""Password hashing by argon2id, in low-priority threads so that logins do not slow requests."""

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
from argon2.exceptions import InvalidHashError
from argon2.low_level import hash_secret_raw

from referral.adapters.observability.samples import DurationHistogram, Sample
from referral.adapters.security.equal_time import EqualTime
from referral.adapters.security.foreign_hashes import parse_foreign_hash
from referral.core.errors import InvalidRequest, Unavailable

T = TypeVar("T")

ARGON2 = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
"""OWASP's Password Storage Cheat Sheet: argon2id with m=19456 KiB, t=2, p=1."""

DECOY_HASH = ARGON2.hash("verified against when an e-mail address has no account")

VERIFY_COST_KIB = ARGON2.time_cost * ARGON2.memory_cost
"""The cost of verifying against a new hash or the decoy: passes times KiB."""

MIN_MEMORY_KIB = 8
"""The least memory that argon2 accepts."""

COMMON_PASSWORDS_FILE = Path(__file__).parent / "common_passwords.txt.gz"
"""`common_passwords.LICENSE` names the source."""

HASH_THREADS = 2
MAX_QUEUED_HASHES = 400
HASH_THREAD_NICENESS = 10


class ArgonPasswordHasher:
    """Hashes passwords in two threads with a bounded queue; a full queue raises `Unavailable`."""

    def __init__(self) -> None:
        """The first hash starts the threads."""
        self._pool = ThreadPoolExecutor(HASH_THREADS, "argon2", initializer=lower_thread_priority)
        self._queued = self._refused = 0
        self._queue_times = DurationHistogram()
        self._equal_time = EqualTime(DECOY_HASH)

    async def hash(self, password: str) -> str:
        """Return the password's hash."""
        return await self._run_in_pool(lambda: ARGON2.hash(password))

    async def verify(
        self, password: str, password_hash: str | None, costliest_hash: str | None = None
    ) -> bool:
        """Return whether the hash is that of the password; without a hash, verify a decoy.

        With the costliest hash of all accounts, every failed verification takes as long as with it.
        """
        hashed = password_hash or DECOY_HASH
        if costliest_hash is None:
            matches = await self._run_in_pool(lambda: _matches(password, hashed))
        else:
            equal_time = self._equal_time
            matches = await self._run_in_pool(
                lambda: equal_time.verify(password.encode(), hashed, costliest_hash)
            )
        return matches and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash is of another form, or has other parameters, than new hashes."""
        try:
            return ARGON2.check_needs_rehash(password_hash)
        except InvalidHashError:
            return True

    def cost(self, password_hash: str) -> int | None:
        try:
            milliseconds = parse_foreign_hash(password_hash).milliseconds
        except ValueError as error:
            raise InvalidRequest(f"The hash {error}.", field="password_hash") from error
        return milliseconds if self.needs_rehash(password_hash) else None

    def close(self) -> None:
        """Cancel the queued hashes and end the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def samples(self) -> Iterator[Sample]:
        """Return the length of the queue, the refused hashes and the queue times."""
        yield Sample("referral_hashes_waiting", (), self._queued)
        yield Sample("referral_hashes_refused", (), self._refused)
        yield Sample("referral_hash_wait_seconds", (), self._queue_times.histogram())

    async def _run_in_pool(self, function: Callable[[], T]) -> T:
        if self._queued >= MAX_QUEUED_HASHES:
            self._refused += 1
            raise Unavailable("Too many people are logging in. Try again in a few seconds.")
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
    """Return the 11,000 most common passwords with at least eight characters, in lower case."""
    return frozenset(gzip.decompress(COMMON_PASSWORDS_FILE.read_bytes()).decode().splitlines())


def lower_thread_priority() -> None:
    """Lower the priority of the current thread below the event loop's."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASH_THREAD_NICENESS)


def _matches(password: str, password_hash: str) -> bool:
    try:
        return parse_foreign_hash(password_hash).matches(password.encode())
    except ValueError:  # no hash: the account has no password that matches
        return False
    finally:
        _equalize_time(password_hash)


def _equalize_time(password_hash: str) -> None:
    """Spend the time by which verifying a cheaper, older hash was faster than a new one.

    Otherwise the duration would reveal that the account exists. Costlier hashes are not equalized.
    """
    memory_kib = (VERIFY_COST_KIB - _cost_kib(password_hash)) // ARGON2.time_cost
    if memory_kib >= MIN_MEMORY_KIB:
        hash_secret_raw(b"", bytes(16), ARGON2.time_cost, memory_kib, 1, ARGON2.hash_len, Type.ID)


def _cost_kib(password_hash: str) -> int:
    try:
        parameters = extract_parameters(password_hash)
    except InvalidHashError:
        return 0
    return parameters.time_cost * parameters.memory_cost
