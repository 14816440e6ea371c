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
    after: UUID | None

    @classmethod
    def cut(cls, found: list[T], limit: int, place: Callable[[T], UUID]) -> "Page[T]":
        """Make a page of `limit` out of up to `limit + 1` items, the last showing there is more."""
        items = found[:limit]
        return cls(items, place(items[-1]) if len(found) > limit else None)
