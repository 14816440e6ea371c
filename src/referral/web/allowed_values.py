"""Error messages that say which values a field or parameter takes."""

import re
from collections.abc import Iterable
from typing import Any

from msgspec import inspect

INVALID_ENUM_VALUE = "Invalid enum value"
"""The beginning of msgspec's message, which does not name the valid values."""


TIME_DETAIL = "Send a time with a UTC offset, such as 2026-12-31T23:59:59Z. In a URL, + is %2B."

EXPECTATION = re.compile(r"Expected `(?P<types>[^`]+)`(?:, got `[^`]+`)?(?P<limit>.*)", re.DOTALL)
"""Messages of msgspec about types and limits."""

TYPE_NAMES = {
    "array": "an array",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "an object",
    "str": "a string",
    "uuid": "a UUID",
}
"""The types of msgspec in the terms of JSON."""

LIMIT_WORDS = {
    " of length": " with a length",
    " >= ": " of at least ",
    " <= ": " of at most ",
}


def explain_value_error(message: str, annotation: Any, path: Iterable[str] = ()) -> str:  # noqa: ANN401 - any type
    """Return a message of msgspec that says what to send: for an enum, the valid values.

    `path` leads from the annotated type to the value, as in a JSON pointer.
    """
    if not message.startswith(INVALID_ENUM_VALUE):
        return _explain_expectation(message)
    info = _without_null(inspect.type_info(annotation))
    for name in path:
        info = _without_null(_child(info, name))
    values = [str(each.value) for each in info.cls] if isinstance(info, inspect.EnumType) else []
    return f"{message}. Use one of: {', '.join(values)}." if values else message


def _explain_expectation(message: str) -> str:
    match = EXPECTATION.fullmatch(message)
    types = match["types"].split(" | ") if match else []
    if "datetime" in types or message == "Invalid RFC3339 encoded datetime":
        return TIME_DETAIL
    if match is None:
        return message
    names, limit = " or ".join(TYPE_NAMES.get(each, each) for each in types), match["limit"]
    for symbol, words in LIMIT_WORDS.items():
        limit = limit.replace(symbol, words)
    return f"Must be {names}{limit}."


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
