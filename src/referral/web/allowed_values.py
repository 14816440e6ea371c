"""Error messages that say which values a field or parameter takes."""

from collections.abc import Iterable
from typing import Any

from msgspec import inspect

INVALID_ENUM_VALUE = "Invalid enum value"
"""The beginning of msgspec's message, which does not name the valid values."""


TIME_DETAIL = "Send a time with a UTC offset, such as 2026-12-31T23:59:59Z. In a URL, + is %2B."
EXPLANATIONS = {
    "Expected `bool`, got `str`": "Send true or false.",
    "Expected `bool | null`, got `str`": "Send true or false.",
    "Expected `datetime` with a timezone component": TIME_DETAIL,
    "Invalid RFC3339 encoded datetime": TIME_DETAIL,
}
"""Messages of msgspec in the terms of Python, and what to send instead."""


def explain_value_error(message: str, annotation: Any, path: Iterable[str] = ()) -> str:  # noqa: ANN401 - any type
    """Return a message of msgspec that says what to send: for an enum, the valid values.

    `path` leads from the annotated type to the value, as in a JSON pointer.
    """
    if not message.startswith(INVALID_ENUM_VALUE):
        return EXPLANATIONS.get(message, message)
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
