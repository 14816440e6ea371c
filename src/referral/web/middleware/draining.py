"""The last seconds before the end: still serving, while balancers turn away.

A balancer learns of the end from readiness, or from `Connection: close`, or only when connecting
fails. So that it can then go elsewhere with any request, a POST too, connecting has to fail before
a request was sent: in the last moment the kernel drops new connections, while those that it had
already made are still taken and served. A socket that is just closed resets these.
"""

import asyncio
import ctypes
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DRAIN_SECONDS_ENV = "DRAIN_SECONDS"
"""Where a worker process is told how many seconds it has from the signal to the end."""

DRAIN_SIGNAL = signal.SIGUSR1
REJECT_CONNECTIONS_SECONDS = 0.5
"""For how long before the end no connection is made any more."""

SO_ATTACH_FILTER = 26
LOAD_BYTE, JUMP_IF_SET, RETURN = 0x30, 0x45, 0x06
TCP_FLAGS_OFFSET, SYN_FLAG = 13, 0x02
DROP_SYN_FILTER = (
    (LOAD_BYTE, 0, 0, TCP_FLAGS_OFFSET),
    (JUMP_IF_SET, 0, 1, SYN_FLAG),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, 0xFFFFFFFF),
)
"""A program for the kernel's packet filter: drop what begins a connection, pass the rest."""


class Drain:
    """Whether the end has begun."""

    def __init__(self) -> None:
        """Begin with no end in sight."""
        self.has_begun = False

    @contextmanager
    def begin_on_signal(self) -> Iterator[None]:
        """Begin at the signal that the server's main process sends to its workers."""
        seconds = os.environ.get(DRAIN_SECONDS_ENV)
        if seconds is None:
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(DRAIN_SIGNAL, self._begin, float(seconds))
        try:
            yield
        finally:
            loop.remove_signal_handler(DRAIN_SIGNAL)

    def _begin(self, seconds: float) -> None:
        if not self.has_begun:
            self.has_begun = True
            loop = asyncio.get_running_loop()
            loop.call_later(max(0.0, seconds - REJECT_CONNECTIONS_SECONDS), reject_new_connections)


def reject_new_connections() -> None:
    """Have the kernel make no more connections to this process; Linux alone knows how."""
    program = b"".join(struct.pack("HBBI", *step) for step in DROP_SYN_FILTER)
    steps = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("HP", len(DROP_SYN_FILTER), ctypes.addressof(steps))
    for number in _file_descriptors():
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as found:
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, argument)


def _file_descriptors() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:
        return []
