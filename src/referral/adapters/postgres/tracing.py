"""Spans of SQL statements: their text, which contains no values, and never their parameters."""

from typing import Any

from opentelemetry.trace import SpanKind

from referral.adapters.observability.tracing import span
from referral.adapters.postgres.engine import QuickClosingConnection

MAX_STATEMENT_CHARACTERS = 2_000
"""Length of the statement in a span."""


class TracedConnection(QuickClosingConnection):
    """A connection of asyncpg with a span for each statement."""

    async def execute(self, query: str, *args: Any, **options: Any) -> str:  # noqa: ANN401
        """See asyncpg."""
        with _statement_span(query):
            return str(await super().execute(query, *args, **options))

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """See asyncpg."""
        with _statement_span(query):
            return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """See asyncpg."""
        with _statement_span(query):
            return await super().fetchrow(query, *args, **options)


def _statement_span(statement: str) -> Any:  # noqa: ANN401
    command = statement.split(None, 1)[:1]
    attributes = {
        "db.system.name": "postgresql",
        "db.query.text": statement[:MAX_STATEMENT_CHARACTERS],
    }
    return span(f"sql {''.join(command).upper()}", SpanKind.CLIENT, attributes)
