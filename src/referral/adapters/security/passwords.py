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

from referral.adapters.observability.samples import Durations, Sample
from referral.core.errors import Unavailable

T = TypeVar("T")

HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
"""OWASP's Password Storage Cheat Sheet: argon2id with m=19456 KiB, t=2, p=1."""

DECOY = HASHER.hash("the hash that an unknown address is compared with")

WORK = HASHER.time_cost * HASHER.memory_cost
"""What comparing with a new hash, or with the decoy, takes: passes over so many KiB."""

MIN_MEMORY = 8
"""Less KiB argon2 cannot take."""

COMMON = Path(__file__).parent / "common_passwords.txt.gz"
"""Whose list it is stands in `common_passwords.LICENSE`."""

THREADS = 2
MAX_WAITING = 400
NICENESS = 10


class ArgonPasswordHasher:
    """Hashes with a bounded queue; one that is full answers with `Unavailable`."""

    def __init__(self) -> None:
        """Start no thread before the first hash."""
        self._pool = ThreadPoolExecutor(THREADS, "argon2", initializer=step_back)
        self._waiting = self._refused = 0
        self._waits = Durations()

    async def hash(self, password: str) -> str:
        """See the port."""
        return await self._run(lambda: HASHER.hash(password))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """See the port."""
        matches = await self._run(lambda: _matches(password, hashed or DECOY))
        return matches and hashed is not None

    def needs_rehash(self, hashed: str) -> bool:
        """See the port."""
        return HASHER.check_needs_rehash(hashed)

    def close(self) -> None:
        """Drop what waits and end the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield Sample("referral_hashes_waiting", (), self._waiting)
        yield Sample("referral_hashes_refused", (), self._refused)
        yield Sample("referral_hash_wait_seconds", (), self._waits.spread())

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            self._refused += 1
            detail = "Too many people are logging in. Try again in a few seconds."
            raise Unavailable(detail)
        self._waiting += 1
        asked = time.perf_counter()
        try:
            began, result = await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: (time.perf_counter(), work())
            )
            self._waits.add(began - asked)
            return result
        finally:
            self._waiting -= 1


def common_passwords() -> frozenset[str]:
    """Return the 11,000 most common passwords of at least eight characters, in lower case."""
    return frozenset(gzip.decompress(COMMON.read_bytes()).decode().splitlines())


def step_back() -> None:
    """Leave the processor to those who answer requests."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _matches(password: str, hashed: str) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
    finally:
        _even_out(hashed)


def _even_out(hashed: str) -> None:
    """Do the work that comparing with an older hash lacks, or its time would tell the account from
    an unknown address. A hash that takes more than a new one is not evened out.
    """
    memory = (WORK - _work_of(hashed)) // HASHER.time_cost
    if memory >= MIN_MEMORY:
        hash_secret_raw(b"", bytes(16), HASHER.time_cost, memory, 1, HASHER.hash_len, Type.ID)


def _work_of(hashed: str) -> int:
    try:
        found = extract_parameters(hashed)
    except InvalidHashError:
        return 0
    return found.time_cost * found.memory_cost
