"""argon2id in threads of its own, so that a burst of logins does not slow other requests."""

import asyncio
import gzip
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from referral.core.errors import Unavailable
from referral.packages import folder_of

T = TypeVar("T")

HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
"""OWASP's Password Storage Cheat Sheet: argon2id with m=19456 KiB, t=2, p=1."""

DECOY = HASHER.hash("the hash that an unknown address is compared with")

THREADS = 2
MAX_WAITING = 400
NICENESS = 10


class ArgonPasswords:
    """Hashes with a bounded queue; one that is full answers with `Unavailable`."""

    def __init__(self) -> None:
        """Start no thread before the first hash."""
        self._pool = ThreadPoolExecutor(THREADS, "argon2", initializer=step_back)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """See the port."""
        return await self._run(lambda: HASHER.hash(password))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """See the port."""
        matches = await self._run(lambda: _matches(password, hashed or DECOY))
        return matches and hashed is not None

    def close(self) -> None:
        """Drop what waits and end the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            detail = "Too many people are logging in. Try again in a few seconds."
            raise Unavailable(detail)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


def common_passwords() -> frozenset[str]:
    """Return the 20,000 most common passwords, from the list that Django maintains."""
    packed = (folder_of("django") / "contrib/auth/common-passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode().split("\n"))


def step_back() -> None:
    """Leave the processor to those who answer requests."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _matches(password: str, hashed: str) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
