"""Connection settings behind a pooler in transaction mode, such as PgBouncer.

`?pooler=transaction` in the database's URL turns them on. The next statement may then run on
another server connection, so that nothing is prepared: asyncpg sends unnamed statements.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

POOLER_PARAMETER = ("pooler", "transaction")


def is_pooled(url: str) -> bool:
    """Return whether the URL is that of a pooler."""
    return POOLER_PARAMETER in parse_qsl(urlsplit(url).query)


def driver_url(url: str) -> str:
    """Return the URL for drivers, which do not know the parameter."""
    if not is_pooled(url):
        return url
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query) if pair != POOLER_PARAMETER]
    return urlunsplit(parts._replace(query=urlencode(query)))


def server_settings(url: str) -> dict[str, str]:
    """Return the settings of a new connection; PgBouncer refuses those that it does not know."""
    return {"application_name": "referral"} | ({} if is_pooled(url) else {"jit": "off"})


def driver_options(url: str) -> dict[str, Any]:
    """Return the options with which asyncpg keeps no prepared statements."""
    return {"statement_cache_size": 0} if is_pooled(url) else {}


def dialect_options(url: str) -> dict[str, Any]:
    """Return the options with which SQLAlchemy prepares unnamed statements only."""
    if not is_pooled(url):
        return {}
    unnamed = {"prepared_statement_name_func": str, "prepared_statement_cache_size": 0}
    return driver_options(url) | unnamed
