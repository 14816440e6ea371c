"""Idempotency keys and stored responses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


StoredResponse = Mapping[str, object]
"""The stored response to a request, in a format of the web layer, to be replayed on a retry."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest(Generic[T]):
    """A request with an idempotency key.

    `key` is a digest of the key and its owner. `request_digests` are keyed digests of the request:
    one for each signing key, newest first. `build_response` converts the result to the response to
    store.
    """

    key: bytes
    request_digests: tuple[bytes, ...]
    build_response: Callable[[T], StoredResponse]
