"""JSON of Structs."""

from typing import TypeVar

import msgspec

Model = TypeVar("Model")


def decode(body: bytes, model: type[Model]) -> Model:
    """Return the model of a response body."""
    return msgspec.json.decode(body, type=model)


def encode(model: object) -> bytes:
    """Return the request body of a model."""
    return msgspec.json.encode(model)
