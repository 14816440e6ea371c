"""Connection settings behind a pooler in transaction mode, such as PgBouncer.

`?pooler=transaction` in the database's URL turns them on. The next statement may then run on
another server connection, so that nothing is prepared: asyncpg sends unnamed statements.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode

POOLER_PARAMETER = ("pooler", "transaction")


def is_pooled(url: str) -> bool:
    """Return whether the URL is that of a pooler."""
    return POOLER_PARAMETER in parse_qsl(url.partition("?")[2])


def driver_url(url: str) -> str:
    """Return the URL for drivers, which do not know the parameter."""
    if not is_pooled(url):
        return url
    base, _, text = url.partition("?")
    query = urlencode([pair for pair in parse_qsl(text) if pair != POOLER_PARAMETER])
    return f"{base}?{query}" if query else base


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
