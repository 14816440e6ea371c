"""The errors of asyncpg and SQLAlchemy that mean that the database is unavailable."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, PendingRollbackError, ResourceClosedError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from referral.core.errors import Unavailable

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""asyncpg raises `InternalClientError` if a connection is cut during a call."""

LOST_CONNECTION_ERRORS = (OSError, PoolTimeoutError, PendingRollbackError, ResourceClosedError)
"""SQLAlchemy raises the last two if an earlier call lost the connection."""

READ_ONLY_ERRORS = (asyncpg.ReadOnlySQLTransactionError,)
"""The errors of a server that no longer takes writes: its connections are of no use."""

STATEMENT_ERROR_CLASSES = {"22", "23", "42"}
"""PostgreSQL's classes of SQLSTATE for data, for constraints, and for syntax and access rights."""


class NoPrimaryError(ConnectionError):
    """No server takes writes; the message says why for each host."""


@contextmanager
def errors_as_unavailable() -> Iterator[None]:
    """Raise `Unavailable` for a database that is down, full, too slow or in a deadlock.

    The block must contain calls of the driver only: other code may raise `OSError` too.
    """
    try:
        yield
    except LOST_CONNECTION_ERRORS as error:
        raise Unavailable from error
    except (DBAPIError, *DRIVER_ERRORS) as error:
        if _is_statement_error(error):
            raise
        raise Unavailable from error


def _is_statement_error(error: Exception) -> bool:
    """Return whether the statement or its values are wrong, so that a retry cannot help."""
    sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None) or ""
    return sqlstate[:2] in STATEMENT_ERROR_CLASSES
