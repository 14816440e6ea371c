"""Reading requests: strict JSON bodies, pages of lists, and the bearer."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.spec import OpenAPIType
from litestar.params import QueryParameter

from referral.core.use_cases.sessions import CheckSession
from referral.web.auth import authenticate_user, find_session_id
from referral.web.problems import (
    FieldError,
    MalformedBody,
    ValidationFailed,
    allow_header,
    body_error,
)

DEFAULT_PAGE_ITEMS = 20
MAX_PAGE_ITEMS = 100
"""How many items a page has, and may have."""

CURSOR_CHECKSUM_BYTES = 8
"""Bytes of a cursor's check sum."""

CURSOR_CHARACTERS = 32
"""Characters of a cursor: the Base64 of an id and its check sum."""


class UnsupportedMediaType(HTTPException):
    """The body is not of the type that the route takes."""

    status_code = 415


class StrictRequest(Request[Any, Any, State]):
    """A request whose JSON body is decoded straight to the handler's type, with no leniency."""

    async def json(self) -> Any:  # noqa: ANN401 - whatever the handler asks for
        """Decode the body, or raise `Malformed` when it is no JSON and `Misfit` when it is."""
        _check_content_type(self)
        body = await self.body()
        kind = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            _check_json(body)
            raise ValidationFailed(body_error(error)) from error
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _malformed_body(error) from error


async def respond_to_options(request: Request[Any, Any, State]) -> Response[None] | None:
    """Answer OPTIONS with the methods of the path, where the framework knows one handler's."""
    return _allowed_methods(request) if request.method == "OPTIONS" else None


async def require_user(request: Request[Any, Any, State]) -> Response[None] | None:
    """The same for what only users may do: who asks comes before what is asked, and its body.

    For a change, the session of the access token has to go on.
    """
    if request.method != "GET":
        return await require_active_session(request)
    await authenticate_user(request)
    return None


async def require_active_session(request: Request[Any, Any, State]) -> Response[None] | None:
    """The same for what an ended session must not do, whatever the method."""
    answer = await respond_to_options(request)
    if answer is None:
        user_id, session_id = await authenticate_user(request), await find_session_id(request)
        if session_id is not None:
            check: CheckSession = await request.app.state.container.get(CheckSession)
            await check(user_id, session_id)
    return answer


async def check_json_body(request: Request[Any, Any, State]) -> None:
    """Raise `Malformed` or `UnsupportedMediaType` where the route takes JSON and gets none."""
    if "data" in request.route_handler.parsed_fn_signature.parameters:
        _check_content_type(request)
        _check_json(await request.body())


def _check_content_type(request: Request[Any, Any, State]) -> None:
    if request.content_type[0] not in {"application/json", ""}:
        detail = "Send the body as JSON, with 'Content-Type: application/json'."
        raise UnsupportedMediaType(detail)


def _allowed_methods(request: Request[Any, Any, State]) -> Response[None]:
    path = request.scope["path_template"]
    methods = {
        name
        for route in request.app.routes
        if route.path_format == path
        for name in getattr(route, "methods", ())
    }
    return Response(None, status_code=204, headers={"Allow": allow_header(methods)})


def _check_json(body: bytes) -> None:
    """Raise `Malformed` for what is no JSON, also behind the place where it did not fit."""
    try:
        # A number that is too long is JSON all the same.
        with suppress(msgspec.ValidationError):
            msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed_body(error) from error


def _malformed_body(error: Exception) -> MalformedBody:
    return MalformedBody(f"The body is no JSON in UTF-8: {error}")


class PageRequest(msgspec.Struct, frozen=True):
    """Which stretch of a list is asked for."""

    limit: int
    cursor: str | None

    def after(self, *list_key: object) -> UUID | None:
        """Return the place that the cursor names in the list of `owner`, or raise `Misfit`."""
        if self.cursor is None:
            return None
        last_id = _parse_cursor(self.cursor) if len(self.cursor) == CURSOR_CHARACTERS else None
        if last_id is None or make_cursor(last_id, *list_key) != self.cursor:
            raise ValidationFailed(
                FieldError("This is no cursor of this list.", parameter="cursor")
            )
        return last_id


def _parse_cursor(cursor: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(bytes=urlsafe_b64decode(cursor.encode("ascii"))[:-CURSOR_CHECKSUM_BYTES])
    return None


def make_cursor(last_id: UUID | None, *list_key: object) -> str | None:
    """Make the opaque cursor for a place in the list of `owner`; it fits no other list."""
    if last_id is None:
        return None
    tag = sha256(last_id.bytes + repr([str(part) for part in list_key]).encode()).digest()[
        :CURSOR_CHECKSUM_BYTES
    ]
    return urlsafe_b64encode(last_id.bytes + tag).rstrip(b"=").decode()


def provide_page_request(
    limit: Annotated[
        str,
        QueryParameter(
            description="How many items.",
            schema_extra={
                "type": OpenAPIType.INTEGER,
                "minimum": 1,
                "maximum": MAX_PAGE_ITEMS,
                "default": DEFAULT_PAGE_ITEMS,
            },
        ),
    ] = str(DEFAULT_PAGE_ITEMS),
    cursor: Annotated[
        str | None, QueryParameter(description="`next_cursor` of the page before.")
    ] = None,
) -> PageRequest:
    """Read `limit` and `cursor`. A number is digits and nothing else: `1e1` is none."""
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_PAGE_ITEMS:
        fault = FieldError(f"Send a whole number from 1 to {MAX_PAGE_ITEMS}.", parameter="limit")
        raise ValidationFailed(fault)
    return PageRequest(int(limit), cursor)
