"""Requests with an idempotency key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


StoredResponse = Mapping[str, object]
"""The response to a request, to be given again. Only the web layer knows what is in it."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest(Generic[T]):
    """A request that carries an idempotency key.

    `key` is a digest of the key and of whose it is, `fingerprints` are what the body may have
    been remembered by, the newest first; `respond` turns the result into the response to keep.
    """

    key: bytes
    fingerprints: tuple[bytes, ...]
    build_response: Callable[[T], StoredResponse]
