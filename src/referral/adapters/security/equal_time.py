"""Password verification that takes the same time for cheap and for costly hashes.

While some accounts have imported hashes, a failed login must not tell by its time which accounts
these are, or whether there is an account. So each failure is continued until it has used as much
time of the processor as the costliest hash.
"""

import hashlib
import threading
import time
from collections.abc import Callable

from referral.adapters.security.foreign_hashes import ForeignHash, parse_foreign_hash

MEASUREMENTS = 3
MARGIN = 1.1
"""The target exceeds the measured time, whose spread would tell the costliest hashes apart."""

CALIBRATION_ITERATIONS = 20_000

NEGLIGIBLE_SECONDS = 0.0002
"""Less time than this cannot be measured over a network, and is not added."""


class EqualTime:
    """Verifies passwords. The cost of a hash is measured once for all with its parameters.

    Threads may share an object. Time is that of the thread's processor, since waiting for the
    processor depends on the load, not on the account. Only argon2 with several lanes counts the
    time of the clock, because its lanes are threads of their own.
    """

    def __init__(self, least_hash: str) -> None:
        """No failure takes less time than the verification of `least_hash`."""
        self._least_hash = least_hash
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._iteration_seconds = 0.0

    def verify(self, password: bytes, password_hash: str, costliest_hash: str) -> bool:
        """Return whether the hash is that of the password; False takes the same time for all."""
        target = max(self._measure(self._least_hash), self._measure(costliest_hash)) * MARGIN
        try:
            parsed = parse_foreign_hash(password_hash)
        except ValueError:  # not a hash: no password matches
            self._spend(target)
            return False
        clock = _clock(parsed)
        started = clock()
        if parsed.matches(password):
            return True
        self._spend(target - (clock() - started))
        return False

    def _measure(self, password_hash: str) -> float:
        """Return the seconds that the verification of a hash with these parameters takes."""
        parsed = parse_foreign_hash(password_hash)
        with self._lock:  # one measurement serves all threads
            if not self._iteration_seconds:
                seconds = _slowest(time.thread_time, lambda: _iterate(CALIBRATION_ITERATIONS))
                self._iteration_seconds = seconds / CALIBRATION_ITERATIONS
            if parsed.parameters not in self._seconds:
                slowest = _slowest(_clock(parsed), lambda: parsed.matches(b""))
                self._seconds[parsed.parameters] = slowest
            return self._seconds[parsed.parameters]

    def _spend(self, seconds: float) -> None:
        """Use the processor for this time. Each round corrects the error of the one before."""
        end = time.thread_time() + seconds
        while (left := end - time.thread_time()) > NEGLIGIBLE_SECONDS:
            _iterate(int(left / self._iteration_seconds) + 1)


def _clock(parsed: ForeignHash) -> Callable[[], float]:
    return time.perf_counter if parsed.lanes > 1 else time.thread_time


def _slowest(clock: Callable[[], float], function: Callable[[], object]) -> float:
    """Return the longest time of a few calls."""

    def measure() -> float:
        started = clock()
        function()
        return clock() - started

    return max(measure() for _ in range(MEASUREMENTS))


def _iterate(iterations: int) -> None:
    """Compute hashes for about 0.2 microseconds each, without the interpreter's lock."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", iterations)
