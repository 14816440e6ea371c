"""Problem details (RFC 9457): the error responses of the core, of Litestar and of middleware."""

import math
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR as INTERNAL
from litestar.types import Scope
from msgspec import UNSET, UnsetType

from referral.core import errors
from referral.web.allowed_values import explain_value_error

STATUS_BY_ERROR: dict[type[errors.ReferralError], int] = {
    errors.Unauthenticated: 401,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.Denied: 403,
    errors.TooManyRequests: 429,
    errors.Unavailable: 503,
}
"""The status of each family of core errors; the nearest ancestor of an error's class decides."""

PATH_SAFE_CHARACTERS = "%/:@!$&'()*+,;="
"""Characters besides letters and digits that a path may contain unencoded (RFC 3986, 3.3)."""

PROBLEM_MEDIA_TYPE = "application/problem+json"
UNAVAILABLE_RETRY_AFTER_SECONDS = "2"

HTTP_PROBLEMS = {
    400: ("malformed-request", "The request is malformed: invalid JSON or an invalid header."),
    401: ("unauthenticated", "The request has no valid access token."),
    404: ("not-found", errors.NotFound.default_detail),
    405: ("method-not-allowed", "The resource does not allow this method; see the Allow header."),
    408: ("request-timeout", "The request was not received in time. Send it again."),
    413: ("content-too-large", "The body exceeds 64 KiB or 1,024 chunks."),
    414: ("uri-too-long", "The query exceeds 8,192 bytes or 100 parameters."),
    415: ("unsupported-media-type", "The route does not accept the body's media type."),
    422: (
        "invalid-request",
        "The request body or a parameter is invalid; `errors` lists each invalid value.",
    ),
    426: ("newer-http-required", "The route requires HTTP/1.1 or newer, also of proxies."),
    429: ("too-many-requests", "A rate limit is exceeded; see the Retry-After header."),
    500: ("internal-server-error", "Internal error. The service logged it with the request id."),
}
"""Slug and description of the errors that Litestar or the middleware raises, by status."""

MSGSPEC_MESSAGE = re.compile(
    r"(?P<what>.*? field `(?P<name>.*?)`|.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL
)
"""A message of msgspec: the error, the name of an unknown or missing field, and the path."""

MAX_MSGSPEC_MESSAGE_CHARACTERS = 500
"""Longer messages are not parsed: they repeat the name of an unknown field."""

MISSING_PARAMETER_MESSAGE = re.compile(r"(?P<what>Missing required \w+ parameter) '(?P<name>\w+)'")
"""A message of Litestar."""

INVALID_VALUES_DETAIL = "The request contains invalid values; 'errors' lists each of them."


class FieldError(msgspec.Struct):
    """An invalid value of the request: a field of the body or a parameter."""

    detail: str
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET


class ProblemDetails(msgspec.Struct):
    """Problem details (RFC 9457). `code` identifies the problem type in every deployment; later
    versions can add codes.
    """

    type: str
    code: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] | UnsetType = UNSET


class MalformedBody(HTTPException):
    """The body is not valid JSON."""

    status_code = 400


class ContentTooLarge(HTTPException):
    """The body has too many bytes or chunks."""

    status_code = 413


class RequestTimeout(HTTPException):
    """The body was not received in time."""

    status_code = 408


class NewerHttpRequired(HTTPException):
    """An HTTP/1.0 client could not tell whether the response is complete."""

    status_code = 426

    def __init__(self) -> None:
        """Tell the client which version to use (RFC 9110, section 15.5.22)."""
        headers = {"Upgrade": "HTTP/1.1", "Connection": "Upgrade"}
        super().__init__(HTTP_PROBLEMS[426][1], headers=headers)


class ValidationFailed(HTTPException):
    """The body is valid JSON with invalid values, or a parameter is invalid."""

    status_code = 422

    def __init__(self, *field_errors: FieldError) -> None:
        """Take one error for each invalid value."""
        super().__init__(INVALID_VALUES_DETAIL)
        self.field_errors = list(field_errors)


HTTP_HINTS: dict[type[errors.ReferralError], str] = {
    errors.Unauthenticated: "Send it as 'Authorization: Bearer <token>'.",
    errors.WebhookDisabled: "PATCH it with 'enabled': true.",
}
"""What a core error's default detail lacks, because it is specific to HTTP."""


def status_of(error_class: type[errors.ReferralError]) -> int:
    """Return the HTTP status of a core error."""
    return next(
        STATUS_BY_ERROR[ancestor] for ancestor in error_class.__mro__ if ancestor in STATUS_BY_ERROR
    )


def body_error(error: msgspec.ValidationError, body_type: Any) -> FieldError:  # noqa: ANN401 - any type
    """Convert a message of msgspec, which ends in a path, to a field error with a JSON pointer."""
    if len(str(error)) > MAX_MSGSPEC_MESSAGE_CHARACTERS:
        return FieldError(
            "The body has an unknown field with a very long name. Remove it.", pointer=""
        )
    match = MSGSPEC_MESSAGE.fullmatch(str(error))
    if match is None:
        return FieldError(str(error), pointer="")
    pointer = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", match["path"] or "").replace(".", "/")
    if match["name"] is not None:
        pointer += "/" + match["name"].replace("~", "~0").replace("/", "~1")
    detail = explain_value_error(match["what"], body_type, pointer.split("/")[1:])
    return FieldError(detail, pointer=pointer)


def handle_core_error(
    request: Request[Any, Any, Any], error: errors.ReferralError
) -> Response[ProblemDetails]:
    """Respond with the problem details of a core error."""
    status, error_class = status_of(type(error)), type(error)
    detail = _detail_of(error)
    field_errors = [_core_field_error(request, detail, error.field)] if error.field else []
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _bearer_challenge(request)
    if isinstance(error, errors.InsufficientScope):
        required = f', scope="{error.scope}"' if error.scope else ""
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope"{required}'
    if isinstance(error, errors.TooManyRequests):
        headers["Retry-After"] = str(math.ceil(error.retry_after.total_seconds()))
    if isinstance(error, errors.Unavailable):
        log_unavailable(error)
        headers["Retry-After"] = UNAVAILABLE_RETRY_AFTER_SECONDS
    return _respond(request, status, slug_of(error_class), detail, field_errors, headers)


def default_detail(class_or_status: type[errors.ReferralError] | int) -> str:
    """Return the detail of a problem that has none of its own."""
    if isinstance(class_or_status, int):
        return HTTP_PROBLEMS[class_or_status][1]
    hint = HTTP_HINTS.get(class_or_status)
    detail = class_or_status.default_detail
    return f"{detail} {hint}" if hint else detail


def log_unavailable(error: errors.Unavailable) -> None:
    """Log the cause of a 503; its response does not tell it."""
    structlog.get_logger().warning("unavailable", cause=repr(error.__cause__ or error.detail))


def log_unexpected(error: Exception) -> None:
    """Log the traceback of a 500; its response does not tell it."""
    structlog.get_logger().error("unexpected error", exc_info=error)


def _detail_of(error: errors.ReferralError) -> str:
    is_default = error.detail == error.default_detail
    return default_detail(type(error)) if is_default else error.detail


def handle_http_exception(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[ProblemDetails]:
    """Respond with the problem details of an error that Litestar or this layer raised."""
    status, detail, field_errors = error.status_code, str(error.detail), []
    if detail == HTTPStatus(status).phrase or isinstance(error, NotFoundException):
        detail = HTTP_PROBLEMS.get(status, ("", detail))[1]
    if isinstance(error, ValidationFailed):
        field_errors = error.field_errors
    if isinstance(error, ValidationException):
        status, field_errors = 422, _parameter_errors(request, error)
        detail = INVALID_VALUES_DETAIL
        if any(field_error.parameter == "data" for field_error in field_errors):
            status, field_errors, detail = 400, [], "The body is empty. Send a JSON object."
    headers = {
        name: allow_header(value.split(", ")) if name.lower() == "allow" else value
        for name, value in (error.headers or {}).items()
    }
    return _respond(request, status, slug_of(status), detail, field_errors, headers)


def allow_header(methods: Iterable[str]) -> str:
    """Return the value of an Allow header; a resource that allows GET also allows HEAD."""
    known = set(methods)
    return ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))


def handle_unexpected_error(
    request: Request[Any, Any, Any], error: Exception
) -> Response[ProblemDetails]:
    """Respond with 500 and log the error."""
    log_unexpected(error)
    slug, detail = HTTP_PROBLEMS[INTERNAL]
    return _respond(request, INTERNAL, slug, detail, [], {})


def slug_of(class_or_status: type[errors.ReferralError] | int) -> str:
    """Return the slug of a core error (its class name in kebab case) or of an HTTP status."""
    if isinstance(class_or_status, int):
        return HTTP_PROBLEMS.get(class_or_status, ("http-error", ""))[0]
    return re.sub(r"(?<!^)(?=[A-Z])", "-", class_or_status.__name__).lower()


def title_of(slug: str) -> str:
    """Return the title of a problem type: the words of its slug."""
    return slug.replace("-", " ").capitalize()


EXCEPTION_HANDLERS: dict[int | type[Exception], Callable[[Any, Any], Response[Any]]] = {
    errors.ReferralError: handle_core_error,
    HTTPException: handle_http_exception,
    Exception: handle_unexpected_error,
}


def _core_field_error(request: Request[Any, Any, Any], detail: str, field: str) -> FieldError:
    """Locate the invalid value: a parameter of the path or of a GET, or a field of the body."""
    if request.method == "GET" or field in request.path_params:
        return FieldError(detail, parameter=field)
    return FieldError(detail, pointer=f"/{field}")


def _bearer_challenge(request: Request[Any, Any, Any]) -> str:
    sent = "authorization" in request.headers
    return 'Bearer error="invalid_token"' if sent else "Bearer"


def parameter_error(request: Request[Any, Any, Any], name: str, detail: str) -> FieldError:
    """Return the error of a parameter; that of an enum names the valid values."""
    known = request.route_handler.parsed_fn_signature.parameters
    annotation = known[name].annotation if name in known else Any
    return FieldError(explain_value_error(detail, annotation), parameter=name)


def _parameter_errors(
    request: Request[Any, Any, Any], error: ValidationException
) -> list[FieldError]:
    missing = MISSING_PARAMETER_MESSAGE.match(str(error.detail))
    if missing:
        return [FieldError(missing["what"], parameter=missing["name"])]
    extra = error.extra if isinstance(error.extra, list) else []
    return [
        parameter_error(request, str(entry.get("key", "")), str(entry["message"]))
        for entry in extra
    ]


def _respond(
    request: Request[Any, Any, Any],
    status: int,
    slug: str,
    detail: str,
    field_errors: list[FieldError],
    headers: dict[str, str],
) -> Response[ProblemDetails]:
    problem = _problem_details(request.scope, request.app.state.public_url, status, slug, detail)
    problem.errors = field_errors or UNSET
    return Response(problem, status_code=status, media_type=PROBLEM_MEDIA_TYPE, headers=headers)


def problem_details(scope: Scope, public_url: str, status: int, detail: str) -> ProblemDetails:
    """Return the problem details of an error that a middleware responds with."""
    return _problem_details(scope, public_url, status, slug_of(status), detail)


def _problem_details(
    scope: Scope, public_url: str, status: int, slug: str, detail: str
) -> ProblemDetails:
    return ProblemDetails(
        type=f"{public_url}/problems/{slug}",
        code=slug,
        title=title_of(slug),
        status=status,
        detail=detail,
        instance=_instance(scope),
        request_id=scope["state"].get("request_id", ""),
    )


def _instance(scope: Scope) -> str:
    """Return the path as it was sent, with invalid characters percent-encoded."""
    return quote(scope.get("raw_path") or scope["path"].encode(), safe=PATH_SAFE_CHARACTERS)
