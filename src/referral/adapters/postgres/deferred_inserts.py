"""Rows that the next statement of a transaction inserts beside its own work.

A statement of its own for such a row would cost a round trip, as much as the write that it tells
of. `WITH … AS (INSERT …)` in front of another statement costs none.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

MAX_DEFERRED_ROWS = 20
"""Rows that one statement inserts; each number of rows is a statement that the server prepares."""

CARRIER = re.compile(
    r"\s*(?:(?P<queries>WITH\s+(?!RECURSIVE))|SELECT|INSERT|UPDATE|DELETE)", re.IGNORECASE
)
"""The beginning of a statement that can carry rows."""


class DeferredTable(NamedTuple):
    """A table, and the columns of the rows."""

    name: str
    columns: tuple[str, ...]


class DeferredInserts:
    """Rows that are not inserted yet, in their order."""

    def __init__(self) -> None:
        """Begin with no rows."""
        self._values: dict[DeferredTable, list[object]] = {}

    def __bool__(self) -> bool:
        """Return whether there are rows."""
        return bool(self._values)

    def add(self, table: DeferredTable, row: Sequence[object]) -> bool:
        """Add a row; return whether the rows of this table are as many as a statement inserts."""
        values = self._values.setdefault(table, [])
        values.extend(row)
        return len(values) == MAX_DEFERRED_ROWS * len(table.columns)

    def take_all(self) -> list[tuple[str, list[object]]]:
        """Return statements that insert the rows, with their arguments, and forget the rows."""
        taken, self._values = self._values, {}
        return [(_insert(table, 0, len(values)), values) for table, values in taken.items()]

    def take_with(
        self, sql: str, arguments: Sequence[object]
    ) -> tuple[str, Sequence[object]] | None:
        """Return a statement that inserts the rows beside its own work, and forget the rows.

        The result is None for a statement that cannot do that, such as `WITH RECURSIVE`.
        """
        if CARRIER.match(sql) is None:
            return None
        for table, values in self._values.items():
            sql = _carry(table, len(values), sql, len(arguments))
            arguments = [*arguments, *values]
        self._values = {}
        return sql, arguments


@lru_cache(maxsize=256)
def _carry(table: DeferredTable, values: int, sql: str, arguments: int) -> str:
    deferred = f"WITH deferred_{table.name} AS ({_insert(table, arguments, values)})"
    match = CARRIER.match(sql)
    if match is not None and match["queries"]:
        return f"{deferred}, {sql[match.end() :]}"
    return f"{deferred} {sql}"


def _insert(table: DeferredTable, before: int, values: int) -> str:
    """Return the INSERT whose parameters follow `before` others."""
    width = len(table.columns)
    numbers = [f"${before + number}" for number in range(1, values + 1)]
    rows = (", ".join(numbers[first : first + width]) for first in range(0, values, width))
    places = ", ".join(f"({row})" for row in rows)
    return f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES {places}"  # noqa: S608 - of constants
