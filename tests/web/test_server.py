"""The processes of the server."""

import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest

from referral.server import Server
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
