"""All that is logged while a block runs; afterwards logging is as it was before."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Literal

import structlog

from referral.adapters.observability.logs import set_up_logs


class Output(io.TextIOWrapper):
    """What was written, as text or as bytes."""

    def getvalue(self) -> str:
        """Return all of it."""
        self.seek(0)
        return self.read()


@contextmanager
def logged(kind: Literal["console", "json"]) -> Iterator[Output]:
    """Log in one of the two forms, at the level that tells the most."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with redirect_stderr(Output(io.BytesIO(), "utf-8", write_through=True)) as output:
            set_up_logs(kind, "debug")
            yield output
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
