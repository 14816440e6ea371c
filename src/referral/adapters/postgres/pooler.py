"""What differs behind a pooler that gives a connection for a transaction only, as PgBouncer does.

`?pooler=transaction` in the database's URL says so. No statement is then prepared for later, as the
next one may find another server connection; asyncpg sends an unnamed one along with its execution.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

POOLER_PARAMETER = ("pooler", "transaction")


def is_pooled(url: str) -> bool:
    """Tell whether a URL leads to such a pooler."""
    return POOLER_PARAMETER in parse_qsl(urlsplit(url).query)


def driver_url(url: str) -> str:
    """Return the URL as drivers want it."""
    if not is_pooled(url):
        return url
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query) if pair != POOLER_PARAMETER]
    return urlunsplit(parts._replace(query=urlencode(query)))


def server_settings(url: str) -> dict[str, str]:
    """Return what to ask for at the start; PgBouncer refuses what it does not know."""
    return {"application_name": "referral"} | ({} if is_pooled(url) else {"jit": "off"})


def driver_options(url: str) -> dict[str, Any]:
    """Return what asyncpg is told so that it keeps no statement prepared."""
    return {"statement_cache_size": 0} if is_pooled(url) else {}


def dialect_options(url: str) -> dict[str, Any]:
    """Return the same for SQLAlchemy, which prepares each statement by a name of its own."""
    if not is_pooled(url):
        return {}
    unnamed = {"prepared_statement_name_func": str, "prepared_statement_cache_size": 0}
    return driver_options(url) | unnamed
