"""Capture of the log output of a block."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Literal

import structlog

from referral.adapters.observability.logs import configure_logging


class LogOutput(io.TextIOWrapper):
    """The log output, as text or as bytes."""

    def getvalue(self) -> str:
        """Return the whole output."""
        self.seek(0)
        return self.read()


@contextmanager
def captured_logs(log_format: Literal["console", "json"]) -> Iterator[LogOutput]:
    """Capture the log in one of its formats, at level DEBUG, and restore the configuration."""
    configuration, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with redirect_stderr(LogOutput(io.BytesIO(), "utf-8", write_through=True)) as output:
            configure_logging(log_format, "debug")
            yield output
    finally:
        structlog.configure(**configuration)
        root.handlers[:] = handlers
        root.setLevel(level)
