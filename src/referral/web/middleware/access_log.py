"""The access log. Its records are written in batches, because a write per request is slow."""

import asyncio
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import structlog
from structlog.processors import JSONRenderer

FLUSH_DELAY_SECONDS = 0.05
"""How long a record may wait for its batch; a killed process loses the records of this time."""


class AccessLogRecord(msgspec.Struct, tag_field="event", tag="request"):
    """The log record of a request, with the fields of every other record."""

    method: str
    route: str
    status: int
    ms: float
    request_id: str
    level: str
    timestamp: datetime


class AccessLog:
    """Encodes and writes records itself when structlog renders JSON; otherwise structlog does."""

    def __init__(self, write: Callable[[bytes], object] | None = None) -> None:
        """Read structlog's configuration once; `write` takes lines of JSON, stderr by default."""
        self._log = structlog.get_logger()
        self._is_json = isinstance(structlog.get_config()["processors"][-1], JSONRenderer)
        self._is_enabled = self._log.is_enabled_for(logging.INFO) if self._is_json else True
        self._write = write or _to_stderr
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []

    def add(self, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """Add the record of a completed request."""
        ms = round(seconds * 1000, 2)
        if not self._is_enabled:
            return
        if not self._is_json:
            self._log.info(
                "request", method=method, route=route, status=status, ms=ms, request_id=request_id
            )
            return
        now = datetime.now(UTC)
        self._lines.append(
            self._encode(AccessLogRecord(method, route, status, ms, request_id, "info", now))
        )
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(FLUSH_DELAY_SECONDS, self.flush)

    def flush(self) -> None:
        """Write the pending records."""
        lines, self._lines = self._lines, []
        if lines:
            self._write(b"\n".join((*lines, b"")))


def _to_stderr(lines: bytes) -> None:
    sys.stderr.buffer.write(lines)
    sys.stderr.buffer.flush()
