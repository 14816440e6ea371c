"""Spans for statements: their text, which holds no values, and never what they are given."""

from contextlib import ExitStack
from typing import Any

from opentelemetry.trace import SpanKind
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.observability.tracing import span
from referral.adapters.postgres.database import QuickClosingConnection

MAX_STATEMENT_CHARACTERS = 2_000
"""How much of a statement is told."""


class TracedConnection(QuickClosingConnection):
    """A connection of the driver; what goes through SQLAlchemy is told by `trace_engine`."""

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


def trace_engine(engine: AsyncEngine) -> None:
    """Have a span for each statement that SQLAlchemy executes."""

    def begin(
        _: object,
        __: object,
        statement: str,
        ___: object,
        context: Any,  # noqa: ANN401
        ____: object,
    ) -> None:
        context.span = ExitStack()
        context.span.enter_context(_statement_span(statement))

    def end(_: object, __: object, ___: object, ____: object, about: Any, _____: object) -> None:  # noqa: ANN401
        about.span.close()

    def fail(about: Any) -> None:  # noqa: ANN401
        if stack := getattr(about.execution_context, "span", None):
            error = about.original_exception
            stack.__exit__(type(error), error, None)

    event.listen(engine.sync_engine, "before_cursor_execute", begin)
    event.listen(engine.sync_engine, "after_cursor_execute", end)
    event.listen(engine.sync_engine, "handle_error", fail)


def _statement_span(statement: str) -> Any:  # noqa: ANN401
    words = statement.split(None, 1)
    attributes = {
        "db.system.name": "postgresql",
        "db.query.text": statement[:MAX_STATEMENT_CHARACTERS],
    }
    return span(f"sql {words[0].upper() if words else ''}", SpanKind.CLIENT, attributes)
