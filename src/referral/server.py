"""The HTTP server: the main process, which listens, and the server processes, which serve."""

import gc
import ipaddress
import multiprocessing
import os
import signal
import socket
import threading

import click
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import MPServer
from litestar.types import ASGIApp

from referral.app import create_app_from_environment
from referral.container.configuration import PROCESS_COUNT_ENV
from referral.web.middleware.draining import DRAIN_SECONDS_ENV, DRAIN_SIGNAL

KILL_TIMEOUT_SECONDS = 10
"""How long a server process may take to finish its requests before the main process kills it."""

LOGGING_CONFIG = {"loggers": {"_granian": {"propagate": True}}}
"""The server's own log records propagate to the root logger, which formats all records alike."""

MAX_REQUEST_HEAD_BYTES = 32 * 1024
"""The limit of a request's line and headers, and so of the memory that a slow connection holds."""


def make_app() -> ASGIApp:
    """Create the application in a server process, and end the process with its parent."""
    threading.Thread(target=_exit_with_parent, name="follow-parent", daemon=True).start()
    app = create_app_from_environment()
    gc.freeze()
    return app


def _exit_with_parent() -> None:
    # After a kill -9 of the parent, this process would still hold the port and the data folder.
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


class Server(MPServer):
    """A server that drains for `drain_seconds` after SIGTERM; Ctrl-C stops it at once."""

    drain_seconds = 0

    def signal_handler_interrupt(self, number: int, *rest: object) -> None:
        """Stop the server, or drain it first; a second signal stops it at once."""
        seconds, self.drain_seconds = self.drain_seconds, 0
        if number != signal.SIGTERM or not seconds:
            super().signal_handler_interrupt(number, *rest)  # type: ignore[no-untyped-call]
            return
        for process in multiprocessing.active_children():
            if process.pid:  # os.kill(0) would signal the whole process group
                os.kill(process.pid, DRAIN_SIGNAL)
        stop = threading.Timer(seconds, super().signal_handler_interrupt, (number, *rest))
        stop.daemon = True
        stop.start()


def run_server(host: str, port: int, workers: int, drain_seconds: int) -> None:
    """Serve until Ctrl-C, or until `drain_seconds` after SIGTERM."""
    os.environ[PROCESS_COUNT_ENV] = str(workers)
    os.environ[DRAIN_SECONDS_ENV] = str(drain_seconds)
    # The default action would end a server process that has not installed its handler yet.
    signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)
    # Imported objects live until the end. Frozen, they are skipped by the garbage collector: their
    # memory pages stay shared with the server processes, and collections are shorter.
    gc.collect()
    gc.freeze()
    server = Server(
        "referral.server:make_app",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        loop=Loops.uvloop,
        factory=True,
        websockets=False,
        log_level=LogLevels.warning,
        log_dictconfig=LOGGING_CONFIG,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=10_000, max_buffer_size=MAX_REQUEST_HEAD_BYTES
        ),
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_TIMEOUT_SECONDS,
    )
    server.drain_seconds = drain_seconds
    server.serve()


def resolve_listen_ip(host: str, port: int) -> str:
    """Return the host's IP address; raises `ClickException` when the server cannot bind to it."""
    if "%" in host:
        raise _cannot_listen(host, port, "IPv6 zones are not supported")
    try:
        # A name may resolve to both; the default of `REFERRAL_PUBLIC_URL` is an IPv4 address.
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, *_, address = min(resolved, key=lambda entry: entry[0] != socket.AF_INET)
        # Bind only: with listen(), a load balancer could connect, and its request would be lost.
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return str(address[0])
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, str(getattr(error, "strerror", error))) from error


def local_url(host: str, listen_ip: str, port: int) -> str:
    """Return the URL of the server for this machine; a wildcard address becomes loopback."""
    if ipaddress.ip_address(listen_ip).is_unspecified:
        host = "::1" if ":" in listen_ip else "127.0.0.1"
    return f"http://{_authority(host, port)}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(host: str, port: int, cause: str) -> click.ClickException:
    message = f"Cannot listen on {_authority(host, port)}: {cause}. Set another --host or --port."
    return click.ClickException(message)
