"""Pages of a list: the parameters `limit` and `cursor`, and `next_cursor`."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256
from typing import Annotated, Any, overload
from uuid import UUID

from litestar import Request
from litestar.openapi.spec import OpenAPIType
from litestar.params import QueryParameter
from msgspec import Struct

from referral.web.problems import FieldError, ValidationFailed, parameter_error

DEFAULT_PAGE_ITEMS = 20
MAX_PAGE_ITEMS = 100

FILTERS = (
    *("status", "role", "blocked", "verified", "held"),
    *("user_id", "referrer_id", "actor", "subject", "action", "since", "until", "cursor"),
)
"""Parameters of lists for which "null" is no value. A code may have that text."""

MAX_POSITION = 2**63 - 1
"""The maximum of PostgreSQL's bigint."""

CURSOR_CHECKSUM_BYTES = 8
CURSOR_CHARACTERS = 32
"""The length of a cursor: 16 bytes of a UUID and its checksum, in Base64."""


class PageRequest(Struct, frozen=True):
    """The maximum number of items, and the cursor of the previous page."""

    limit: int
    cursor: str | None

    def after(self, *list_key: object) -> UUID | None:
        """Return the id after which the page begins, or None for the first page.

        Raises `ValidationFailed` if the cursor was not made for the list of `list_key`.
        """
        if self.cursor is None:
            return None
        last_id = _parse_cursor(self.cursor) if len(self.cursor) == CURSOR_CHARACTERS else None
        if last_id is None or make_cursor(last_id, *list_key) != self.cursor:
            raise _invalid_cursor()
        return last_id

    def after_position(self, *list_key: object) -> int:
        """Return the position after which the page begins, or 0 for the first page.

        Raises `ValidationFailed` like `after`, and for a position that the database cannot have:
        the checksum of a cursor is no secret.
        """
        last_id = self.after(*list_key)
        position = last_id.int if last_id else 0
        if position > MAX_POSITION:
            raise _invalid_cursor()
        return position


def _invalid_cursor() -> ValidationFailed:
    detail = "Invalid cursor: send 'next_cursor' of the previous page of this list."
    return ValidationFailed(FieldError(detail, parameter="cursor"))


def _parse_cursor(cursor: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(bytes=urlsafe_b64decode(cursor.encode("ascii"))[:-CURSOR_CHECKSUM_BYTES])
    return None


@overload
def make_cursor(last_id: UUID, *list_key: object) -> str: ...
@overload
def make_cursor(last_id: None, *list_key: object) -> None: ...
@overload
def make_cursor(last_id: UUID | None, *list_key: object) -> str | None: ...
def make_cursor(last_id: UUID | None, *list_key: object) -> str | None:
    """Return the opaque cursor after `last_id`; its checksum binds it to the list of `list_key`."""
    if last_id is None:
        return None
    list_name = repr([str(part) for part in list_key]).encode()
    checksum = sha256(last_id.bytes + list_name).digest()[:CURSOR_CHECKSUM_BYTES]
    return urlsafe_b64encode(last_id.bytes + checksum).rstrip(b"=").decode()


Limit = Annotated[
    str,
    QueryParameter(
        description="The maximum number of items.",
        schema_extra={
            "type": OpenAPIType.INTEGER,
            "minimum": 1,
            "maximum": MAX_PAGE_ITEMS,
            "format": "int32",
            "default": DEFAULT_PAGE_ITEMS,
        },
    ),
]


def parse_limit(limit: str) -> int:
    """Read `limit`, which must be decimal digits; `1e1` is invalid."""
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_PAGE_ITEMS:
        detail = f"Send a whole number from 1 to {MAX_PAGE_ITEMS}."
        raise ValidationFailed(FieldError(detail, parameter="limit"))
    return int(limit)


def provide_page_request(
    request: Request[Any, Any, Any],
    limit: Limit = str(DEFAULT_PAGE_ITEMS),
    cursor: Annotated[
        str | None, QueryParameter(description="`next_cursor` of the previous page.")
    ] = None,
) -> PageRequest:
    """Read `limit` and `cursor`."""
    maximum = parse_limit(limit)
    reject_null_filters(request)
    return PageRequest(maximum, cursor)


def reject_null_filters(request: Request[Any, Any, Any]) -> None:
    """Raise `ValidationFailed` for a filter with the text "null".

    Litestar converts it to None, which would list everything.
    """
    for name in FILTERS:
        if "null" in request.query_params.getall(name, []):
            raise ValidationFailed(parameter_error(request, name, "Invalid enum value 'null'"))
