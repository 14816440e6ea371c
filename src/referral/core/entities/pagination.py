"""Pages of lists."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A stretch of a list, newest first; `after` is where the next one begins, None at the end."""

    items: list[T]
    next_after: UUID | None

    @classmethod
    def from_rows(cls, rows: list[T], limit: int, key: Callable[[T], UUID]) -> "Page[T]":
        """Make a page of `limit` out of up to `limit + 1` items, the last showing there is more."""
        items = rows[:limit]
        return cls(items, key(items[-1]) if len(rows) > limit else None)
