"""The processes of the server."""

import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest

from referral.server import Server, local_url
from referral.web.middleware.draining import DRAIN_SIGNAL


def test_process_without_a_pid_gets_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process id 0 would signal the whole process group."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *signalled: sent.append(signalled))
    children = [SimpleNamespace(pid=None), SimpleNamespace(pid=4711)]
    monkeypatch.setattr(multiprocessing, "active_children", lambda: children)
    monkeypatch.setattr("threading.Timer.start", lambda _: None)
    server = Server("referral.server:make_app")
    server.drain_seconds = 1
    server.signal_handler_interrupt(signal.SIGTERM, None)
    assert sent == [(4711, DRAIN_SIGNAL)]


@pytest.mark.parametrize(
    ("host", "listen_ip", "url"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:8001"),
        ("localhost", "127.0.0.1", "http://localhost:8001"),
        ("::1", "::1", "http://[::1]:8001"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:8001"),  # noqa: S104 - only compared
        ("0", "0.0.0.0", "http://127.0.0.1:8001"),  # noqa: S104 - only compared
        ("::", "::", "http://[::1]:8001"),
    ],
)
def test_local_url_is_reachable_on_this_machine(host: str, listen_ip: str, url: str) -> None:
    """A wildcard address is no target of a request, so loopback replaces it."""
    assert local_url(host, listen_ip, 8001) == url
