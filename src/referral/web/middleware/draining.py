"""Draining: after SIGTERM the service still serves, until load balancers use other instances.

A load balancer notices the end by readiness, by `Connection: close` or by a failing connect. It can
retry any request elsewhere, even a POST, if the connect fails and no request was sent. So in the
last moments the kernel drops new connections, while the process accepts and serves the connections
that the kernel had already made. Closing the listening socket would reset those.
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
"""The variable that tells a server process how many seconds pass from the signal to its end."""

DRAIN_SIGNAL = signal.SIGUSR1
REJECT_CONNECTIONS_SECONDS = 0.5
"""How long before the end the kernel begins to drop new connections."""

SO_ATTACH_FILTER = 26
LOAD_BYTE, JUMP_IF_SET, RETURN = 0x30, 0x45, 0x06
TCP_FLAGS_OFFSET, SYN_FLAG = 13, 0x02
DROP_SYN_FILTER = (
    (LOAD_BYTE, 0, 0, TCP_FLAGS_OFFSET),
    (JUMP_IF_SET, 0, 1, SYN_FLAG),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, 0xFFFFFFFF),
)
"""A classic BPF program that drops TCP segments with the SYN flag and passes all others."""


class Drain:
    """The draining state of this process."""

    def __init__(self) -> None:
        """Start as not draining."""
        self.has_begun = False

    @contextmanager
    def begin_on_signal(self) -> Iterator[None]:
        """Begin to drain at the signal that the main process sends to the server processes."""
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
    """Make the kernel drop new connections to this process's listening sockets; Linux only."""
    instructions = b"".join(struct.pack("HBBI", *each) for each in DROP_SYN_FILTER)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HP", len(DROP_SYN_FILTER), ctypes.addressof(buffer))
    for descriptor in _file_descriptors():
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listener:
            if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _file_descriptors() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:
        return []
