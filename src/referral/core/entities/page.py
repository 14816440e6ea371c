"""Keyset pagination."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list, newest first; `next_after` is the next page's `after`, None at the end."""

    items: list[T]
    next_after: UUID | None

    @classmethod
    def from_rows(cls, rows: list[T], limit: int, key: Callable[[T], UUID]) -> "Page[T]":
        """Make a page of `limit` items from `limit + 1` rows; the extra row proves a next page."""
        items = rows[:limit]
        return cls(items, key(items[-1]) if len(rows) > limit else None)
