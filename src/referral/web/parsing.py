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
from referral.web.auth import identify_session, identify_user
from referral.web.problems import Fault, Malformed, Misfit, body_fault, with_head

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
"""How many items a page has, and may have."""

TAG = 8
"""Bytes of a cursor's check sum."""

CURSOR = 32
"""Characters of a cursor: the Base64 of an id and its check sum."""


class UnsupportedMediaType(HTTPException):
    """The body is not of the type that the route takes."""

    status_code = 415


class StrictRequest(Request[Any, Any, State]):
    """A request whose JSON body is decoded straight to the handler's type, with no leniency."""

    async def json(self) -> Any:  # noqa: ANN401 - whatever the handler asks for
        """Decode the body, or raise `Malformed` when it is no JSON and `Misfit` when it is."""
        _check_type(self)
        body = await self.body()
        kind = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            _check_json(body)
            raise Misfit(body_fault(error)) from error
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _malformed(error) from error


async def check_request(request: Request[Any, Any, State]) -> Response[None] | None:
    """Answer OPTIONS with the methods of the path, where the framework knows one handler's."""
    return _tell_methods(request) if request.method == "OPTIONS" else None


async def check_user(request: Request[Any, Any, State]) -> Response[None] | None:
    """The same for what only users may do: who asks comes before what is asked, and its body.

    For a change, the session of the access token has to go on.
    """
    if request.method != "GET":
        return await check_session(request)
    await identify_user(request)
    return None


async def check_session(request: Request[Any, Any, State]) -> Response[None] | None:
    """The same for what an ended session must not do, whatever the method."""
    answer = await check_request(request)
    if answer is None:
        user_id, session_id = await identify_user(request), await identify_session(request)
        if session_id is not None:
            check: CheckSession = await request.app.state.container.get(CheckSession)
            await check(user_id, session_id)
    return answer


async def check_json(request: Request[Any, Any, State]) -> None:
    """Raise `Malformed` or `UnsupportedMediaType` where the route takes JSON and gets none."""
    if "data" in request.route_handler.parsed_fn_signature.parameters:
        _check_type(request)
        _check_json(await request.body())


def _check_type(request: Request[Any, Any, State]) -> None:
    if request.content_type[0] not in {"application/json", ""}:
        detail = "Send the body as JSON, with 'Content-Type: application/json'."
        raise UnsupportedMediaType(detail)


def _tell_methods(request: Request[Any, Any, State]) -> Response[None]:
    path = request.scope["path_template"]
    methods = {
        name
        for route in request.app.routes
        if route.path_format == path
        for name in getattr(route, "methods", ())
    }
    return Response(None, status_code=204, headers={"Allow": with_head(methods)})


def _check_json(body: bytes) -> None:
    """Raise `Malformed` for what is no JSON, also behind the place where it did not fit."""
    try:
        # A number that is too long is JSON all the same.
        with suppress(msgspec.ValidationError):
            msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> Malformed:
    return Malformed(f"The body is no JSON in UTF-8: {error}")


class PageRequest(msgspec.Struct, frozen=True):
    """Which stretch of a list is asked for."""

    limit: int
    cursor: str | None

    def after(self, *owner: object) -> UUID | None:
        """Return the place that the cursor names in the list of `owner`, or raise `Misfit`."""
        if self.cursor is None:
            return None
        place = _read_place(self.cursor) if len(self.cursor) == CURSOR else None
        if place is None or make_cursor(place, *owner) != self.cursor:
            raise Misfit(Fault("This is no cursor of this list.", parameter="cursor"))
        return place


def _read_place(cursor: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(bytes=urlsafe_b64decode(cursor.encode("ascii"))[:-TAG])
    return None


def make_cursor(place: UUID | None, *owner: object) -> str | None:
    """Make the opaque cursor for a place in the list of `owner`; it fits no other list."""
    if place is None:
        return None
    tag = sha256(place.bytes + repr([str(part) for part in owner]).encode()).digest()[:TAG]
    return urlsafe_b64encode(place.bytes + tag).rstrip(b"=").decode()


def provide_page(
    limit: Annotated[
        str,
        QueryParameter(
            description="How many items.",
            schema_extra={
                "type": OpenAPIType.INTEGER,
                "minimum": 1,
                "maximum": MAX_LIMIT,
                "default": DEFAULT_LIMIT,
            },
        ),
    ] = str(DEFAULT_LIMIT),
    cursor: Annotated[
        str | None, QueryParameter(description="`next_cursor` of the page before.")
    ] = None,
) -> PageRequest:
    """Read `limit` and `cursor`. A number is digits and nothing else: `1e1` is none."""
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        fault = Fault(f"Send a whole number from 1 to {MAX_LIMIT}.", parameter="limit")
        raise Misfit(fault)
    return PageRequest(int(limit), cursor)
