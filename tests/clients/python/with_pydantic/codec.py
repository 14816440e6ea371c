"""JSON of pydantic models."""

from typing import TypeVar

from pydantic import BaseModel, TypeAdapter

Model = TypeVar("Model")


def decode(body: bytes, model: type[Model]) -> Model:
    """Return the model of a response body."""
    return TypeAdapter(model).validate_json(body)


def encode(model: object) -> bytes:
    """Return the request body of a model, without the fields that are not set."""
    assert isinstance(model, BaseModel)
    return model.model_dump_json(exclude_unset=True).encode()
