"""The values that a field or parameter with an enum takes, for error messages."""

from collections.abc import Iterable
from typing import Any

from msgspec import inspect

INVALID_ENUM_VALUE = "Invalid enum value"
"""The beginning of msgspec's message, which does not name the valid values."""


def explain_enum_error(message: str, annotation: Any, path: Iterable[str] = ()) -> str:  # noqa: ANN401 - any type
    """Append the valid values to a message of msgspec about an enum; return others unchanged.

    `path` leads from the annotated type to the enum, as in a JSON pointer.
    """
    if not message.startswith(INVALID_ENUM_VALUE):
        return message
    info = _without_null(inspect.type_info(annotation))
    for name in path:
        info = _without_null(_child(info, name))
    values = [str(each.value) for each in info.cls] if isinstance(info, inspect.EnumType) else []
    return f"{message}. Use one of: {', '.join(values)}." if values else message


def _child(info: inspect.Type, name: str) -> inspect.Type:
    if isinstance(info, inspect.StructType):
        return next((field.type for field in info.fields if field.encode_name == name), info)
    return info.item_type if isinstance(info, inspect.CollectionType) else info


def _without_null(info: inspect.Type) -> inspect.Type:
    if isinstance(info, inspect.Metadata):
        return _without_null(info.type)
    if isinstance(info, inspect.UnionType):
        return next(kind for kind in info.types if not isinstance(kind, inspect.NoneType))
    return info
