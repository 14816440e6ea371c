"""Strict decoding of JSON request bodies."""

from contextlib import suppress
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from referral.web.problems import MalformedBody, ValidationFailed, body_error


class UnsupportedMediaType(HTTPException):
    """The request body has a media type that the route does not accept."""

    status_code = 415


class StrictRequest(Request[Any, Any, State]):
    """A request whose JSON body is decoded to the type of the handler's `data` parameter, without
    type coercion.
    """

    async def json(self) -> Any:  # noqa: ANN401 - the type of the handler's `data` parameter
        """Decode the body; raises `MalformedBody`, `ValidationFailed` or `UnsupportedMediaType`."""
        _check_content_type(self)
        body = await self.body()
        data_type = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        try:
            return msgspec.json.decode(body, type=data_type)
        except msgspec.ValidationError as error:
            _check_json(body)
            raise ValidationFailed(body_error(error, data_type)) from error
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _malformed_body(error) from error


async def check_json_body(request: Request[Any, Any, State]) -> None:
    """Raise `MalformedBody` or `UnsupportedMediaType` if the route requires JSON and the request
    body is not JSON.
    """
    if "data" in request.route_handler.parsed_fn_signature.parameters:
        _check_content_type(request)
        _check_json(await request.body())


def _check_content_type(request: Request[Any, Any, State]) -> None:
    if request.content_type[0] not in {"application/json", ""}:
        detail = "Send the body as JSON, with 'Content-Type: application/json'."
        raise UnsupportedMediaType(detail)


def _check_json(body: bytes) -> None:
    """Raise `MalformedBody` for a syntax error anywhere in the body: a typed decoder stops at the
    first value of a wrong type.
    """
    try:
        # An integer outside of the decoder's range is still valid JSON.
        with suppress(msgspec.ValidationError):
            msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed_body(error) from error


def _malformed_body(error: Exception) -> MalformedBody:
    return MalformedBody(f"The body must be valid JSON in UTF-8: {error}")
