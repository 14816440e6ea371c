"""One-line descriptions of failures for operators, without passwords and tracebacks."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gaierror
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from sqlalchemy.exc import DBAPIError

from referral.core.errors import Unavailable

REDIS_PORTS = {"redis": 6379, "rediss": 6379}
POSTGRES_PORT = 5432

MISSING_SCHEMA_SQLSTATES = {"42P01", "42703"}
"""undefined_table and undefined_column."""

DATA_ERROR_CLASSES = ("22", "23")
"""SQLSTATE classes of invalid data and violated constraints, which an operator cannot fix."""


@contextmanager
def explain_database_errors(url: str) -> Iterator[None]:
    """Replace the database errors of a block by `Unavailable` with the server and the cause."""
    try:
        yield
    except (OSError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if _sqlstate(error).startswith(DATA_ERROR_CLASSES):
            raise
        raise Unavailable(_describe(url, error)) from error
    except Unavailable as error:
        if error.__cause__ is None:
            raise
        raise Unavailable(_describe(url, error)) from error


def describe_cause(error: BaseException) -> str:
    """Describe the root cause of an exception."""
    error = _root_cause(error)
    if isinstance(error, gaierror) and error.strerror:
        return error.strerror
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, TimeoutError):
        return "timed out"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def host_and_port(url: str) -> str:
    """Return the host and port of a URL, several with commas, or the folder of a Unix socket."""
    hosts = re.split("[/?#]", url.partition("://")[2])[0].rpartition("@")[2]
    if "," in hosts:
        return hosts
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    host = parts.hostname or query.get("host", "localhost")
    if host.startswith("/"):
        return host
    port = parts.port or query.get("port") or REDIS_PORTS.get(parts.scheme, POSTGRES_PORT)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _describe(url: str, error: BaseException) -> str:
    if _sqlstate(error) in MISSING_SCHEMA_SQLSTATES:
        return f"The schema at {host_and_port(url)} is missing or outdated. Run 'referral migrate'."
    file = getattr(_root_cause(error), "filename", None)
    subject = file or f"PostgreSQL at {host_and_port(url)}"
    return f"{subject} cannot be used: {describe_cause(error)}"


def _sqlstate(error: BaseException) -> str:
    return getattr(_root_cause(error), "sqlstate", None) or ""


def _root_cause(error: BaseException) -> BaseException:
    while cause := _direct_cause(error):
        error = cause
    return error


def _direct_cause(error: BaseException) -> BaseException | None:
    cause: BaseException | None = getattr(error, "orig", None) or error.__cause__
    if cause is None and isinstance(error.__context__, OSError) and not error.__suppress_context__:
        return error.__context__  # redis-py sets no cause
    return cause
