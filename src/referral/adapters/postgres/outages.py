"""Which errors of the driver mean a database that cannot answer now."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, PendingRollbackError, ResourceClosedError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from referral.core.errors import Unavailable

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The last is how the driver puts it when a connection is cut while it is being used."""

LOST_CONNECTION_ERRORS = (OSError, PoolTimeoutError, PendingRollbackError, ResourceClosedError)
"""The last two are how SQLAlchemy puts it when the connection was lost in an earlier call."""


@contextmanager
def errors_as_unavailable() -> Iterator[None]:
    """Turn a database that is gone, full, too slow or in a deadlock into `Unavailable`.

    This belongs around calls of the driver alone: an `OSError` of other code is no outage.
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
    """Tell whether the statement or its values are wrong, and not the state of the server.

    PostgreSQL's error classes: 22 data, 23 constraint, 42 syntax or access.
    """
    sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None) or ""
    return sqlstate[:2] in {"22", "23", "42"}
