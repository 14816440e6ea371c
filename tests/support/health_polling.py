"""Polling of a service for its liveness, with the delays that the service itself causes."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.support.process_stats import cpu_seconds, find_worker
from tests.support.service_process import Service

POLL_SECONDS = 0.01
TIMEOUT_SECONDS = 30.0
LIVENESS_REQUEST = b"GET /health/live HTTP/1.1\r\nHost: example.com\r\n\r\n"


@dataclass(frozen=True)
class HealthSample:
    """One response of `/health/live`, and the CPU seconds that the service used meanwhile."""

    started_at: float
    ended_at: float
    cpu_seconds: float

    @property
    def delay_seconds(self) -> float:
        """The seconds of delay that the service caused.

        On a busy machine the response takes longer as well, but the service uses no CPU meanwhile.
        """
        return min(self.ended_at - self.started_at, self.cpu_seconds)


class HealthPoller(threading.Thread):
    """Requests `/health/live` in a loop."""

    def __init__(self, service: Service) -> None:
        """Polling begins with `start`."""
        super().__init__(daemon=True)
        self.process = find_worker(service)
        self.samples: list[HealthSample] = []
        self.stopping = threading.Event()
        self._answered = threading.Condition()
        self._address = (httpx.URL(service.url).host, httpx.URL(service.url).port or 80)

    def run(self) -> None:
        """Poll until `stopping` is set."""
        with socket.create_connection(self._address, TIMEOUT_SECONDS) as connection:
            while not self.stopping.wait(POLL_SECONDS):
                cpu_before, started_at = cpu_seconds(self.process), time.monotonic()
                connection.sendall(LIVENESS_REQUEST)
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
                ended_at = time.monotonic()
                cpu_used = cpu_seconds(self.process) - cpu_before
                with self._answered:
                    self.samples.append(HealthSample(started_at, ended_at, cpu_used))
                    self._answered.notify_all()

    def max_delay_seconds(self, started_at: float, ended_at: float) -> float:
        """Return the longest delay in a period."""
        return max(
            (
                sample.delay_seconds
                for sample in self.samples
                if sample.started_at < ended_at and started_at < sample.ended_at
            ),
            default=0.0,
        )

    def wait(self) -> None:
        """Wait for the response to a request that is sent after this call."""
        now = time.monotonic()
        with self._answered:
            responded = self._answered.wait_for(
                lambda: self.samples and self.samples[-1].started_at > now, TIMEOUT_SECONDS
            )
        assert responded, "/health/live does not respond"


@contextmanager
def poll_health(service: Service) -> Iterator[HealthPoller]:
    """Poll `/health/live` until the block ends."""
    poller = HealthPoller(service)
    poller.start()
    try:
        poller.wait()
        yield poller
    finally:
        poller.stopping.set()
        poller.join(TIMEOUT_SECONDS)
