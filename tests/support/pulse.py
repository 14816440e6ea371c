"""Asking a service for its health all the time, and telling whose fault a late answer is."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.support.processes import Service
from tests.support.watching import cpu_seconds, worker_of

EVERY = 0.01
PATIENCE = 30.0
LIVE = b"GET /health/live HTTP/1.1\r\nHost: example.com\r\n\r\n"


@dataclass(frozen=True)
class Beat:
    """One answer of `/health/live`, and how much of a processor the service took meanwhile."""

    began: float
    ended: float
    busy: float

    @property
    def still(self) -> float:
        """How long the service itself kept us waiting.

        A machine that has no time for the service, or for us, makes us wait as well, but then
        the service takes no processor meanwhile.
        """
        return min(self.ended - self.began, self.busy)


class Pulse(threading.Thread):
    """Asks for `/health/live` all the time."""

    def __init__(self, service: Service) -> None:
        """Begin with `start`."""
        super().__init__(daemon=True)
        self.process = worker_of(service)
        self.beats: list[Beat] = []
        self.stopping = threading.Event()
        self._answered = threading.Condition()
        self._address = (httpx.URL(service.url).host, httpx.URL(service.url).port or 80)

    def run(self) -> None:
        """Ask until told to stop."""
        with socket.create_connection(self._address, PATIENCE) as connection:
            while not self.stopping.wait(EVERY):
                used, began = cpu_seconds(self.process), time.monotonic()
                connection.sendall(LIVE)
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
                ended = time.monotonic()
                busy = cpu_seconds(self.process) - used
                with self._answered:
                    self.beats.append(Beat(began, ended, busy))
                    self._answered.notify_all()

    def still(self, began: float, ended: float) -> float:
        """Return the longest wait that falls into a time."""
        return max(
            (beat.still for beat in self.beats if beat.began < ended and began < beat.ended),
            default=0.0,
        )

    def wait(self) -> None:
        """Return when an answer came to a question that was asked after this."""
        now = time.monotonic()
        with self._answered:
            came = self._answered.wait_for(
                lambda: self.beats and self.beats[-1].began > now, PATIENCE
            )
        assert came, "/health/live does not answer"


@contextmanager
def pulse_of(service: Service) -> Iterator[Pulse]:
    """Ask for `/health/live` until the block ends."""
    pulse = Pulse(service)
    pulse.start()
    try:
        pulse.wait()
        yield pulse
    finally:
        pulse.stopping.set()
        pulse.join(PATIENCE)
