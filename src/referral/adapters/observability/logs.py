"""Logs: JSON lines for machines, colours for a terminal."""

import logging
import sys
from typing import Literal

import structlog
from structlog.contextvars import get_contextvars

from referral.adapters.observability.redaction import redact

REQUEST_ID = "request_id"
"""The name under which the request id is bound to the log and to jobs."""

TRACEBACK_RENDERER = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
"""Tracebacks without local variables, which may contain passwords and tokens."""


def configure_logging(log_format: Literal["console", "json"] | None, level: str) -> None:
    """Log to standard error; the default format is console on a terminal and JSON elsewhere."""
    as_json = log_format == "json" or (log_format is None and not sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.types.Processor] = (
        [TRACEBACK_RENDERER, redact, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.processors.format_exc_info,
            redact,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def current_request_id() -> str | None:
    """Return the id of the request that is handled, or that queued the job that runs."""
    return get_contextvars().get(REQUEST_ID)


class StructlogSecurityLog:
    """Security events in the service's log."""

    def warn(self, event: str, **facts: str) -> None:
        """Log a warning."""
        structlog.get_logger().warning(event, **facts)
