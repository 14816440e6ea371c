"""Errors as problem documents (RFC 9457): the core's, the framework's, and the unforeseen."""

import math
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from litestar import Controller, MediaType, Request, Response, get
from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import FromPath
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR as INTERNAL
from litestar.types import Scope

from referral.core import errors

STATUS_BY_ERROR: dict[type[errors.ReferralError], int] = {
    errors.Unauthenticated: 401,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.Denied: 403,
    errors.TooManyRequests: 429,
    errors.Unavailable: 503,
}
"""The one table of statuses; a class takes the first entry on its line of ancestors."""

PATH_SAFE_CHARACTERS = "%/:@!$&'()*+,;="
"""What stands for itself in a path, beside letters and digits (RFC 3986, section 3.3)."""

PROBLEM_MEDIA_TYPE = "application/problem+json"
UNAVAILABLE_RETRY_AFTER_SECONDS = "2"

HTTP_PROBLEMS = {
    400: ("malformed-request", "The request cannot be read: no JSON, or a header out of shape."),
    401: ("unauthenticated", "No valid access token came with the request."),
    404: ("not-found", "There is nothing here, or nothing that you may see."),
    405: ("method-not-allowed", "The resource does not know this method; see the Allow header."),
    408: ("request-timeout", "The request took too long to arrive."),
    413: ("content-too-large", "A body may have 64 KiB, and come in 1,024 chunks at most."),
    414: ("uri-too-long", "A query may have 8,192 bytes and 100 parameters."),
    415: ("unsupported-media-type", "The body is not of the type that this route takes."),
    422: (
        "invalid-request",
        "The body or a parameter breaks the rules; `errors` names each place.",
    ),
    429: ("too-many-requests", "Too many requests came in a time; see the Retry-After header."),
    500: ("internal-server-error", "An error of the service. It is logged with the request id."),
}
"""Slug and description of what the framework itself refuses."""

MSGSPEC_MESSAGE = re.compile(
    r"(?P<what>.*? field `(?P<name>.*?)`|.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL
)
"""What msgspec says: what is wrong, the field where one is unknown or missing, and the place."""

MAX_MSGSPEC_MESSAGE_CHARACTERS = 500
"""How long a message of msgspec's may be: it repeats the name of an unknown field."""

MISSING_PARAMETER_MESSAGE = re.compile(r"(?P<what>Missing required \w+ parameter) '(?P<name>\w+)'")
"""What Litestar says."""


class FieldError(msgspec.Struct, omit_defaults=True):
    """One place of the request that breaks a rule."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class ProblemDetails(msgspec.Struct, omit_defaults=True):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] = []


class MalformedBody(HTTPException):
    """The body is no JSON."""

    status_code = 400


class ContentTooLarge(HTTPException):
    """The body is too long, or comes in too many chunks."""

    status_code = 413


class RequestTimeout(HTTPException):
    """The body did not come in time."""

    status_code = 408


class ValidationFailed(HTTPException):
    """The body is JSON and does not fit, or a parameter does not."""

    status_code = 422

    def __init__(self, *field_errors: FieldError) -> None:
        """Take each place that breaks a rule."""
        super().__init__("The request breaks the rules; 'errors' names each place.")
        self.field_errors = list(field_errors)


HTTP_HINTS: dict[type[errors.ReferralError], str] = {
    errors.Unauthenticated: "Send it as 'Authorization: Bearer <token>'.",
}
"""What HTTP adds to the detail of an error that the core gave none of its own."""


def status_of(kind: type[errors.ReferralError]) -> int:
    """Return the HTTP status of a core error."""
    return next(
        STATUS_BY_ERROR[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS_BY_ERROR
    )


def body_error(error: msgspec.ValidationError) -> FieldError:
    """Turn msgspec's message, which ends in a path, into a fault with a JSON pointer."""
    if len(str(error)) > MAX_MSGSPEC_MESSAGE_CHARACTERS:
        return FieldError("A name in the body is too long to be that of a field.", pointer="")
    found = MSGSPEC_MESSAGE.fullmatch(str(error))
    if found is None:
        return FieldError(str(error), pointer="")
    pointer = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", found["path"] or "").replace(".", "/")
    if found["name"] is not None:
        pointer += "/" + found["name"].replace("~", "~0").replace("/", "~1")
    return FieldError(found["what"], pointer=pointer)


def handle_core_error(
    request: Request[Any, Any, Any], error: errors.ReferralError
) -> Response[ProblemDetails]:
    """Answer with what the core refused."""
    status, kind = status_of(type(error)), type(error)
    detail = _detail_of(error)
    field_errors = [_core_field_error(request, detail, error.field)] if error.field else []
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _bearer_challenge(request)
    if isinstance(error, errors.InsufficientScope):
        headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    if isinstance(error, errors.TooManyRequests):
        headers["Retry-After"] = str(math.ceil(error.retry_after.total_seconds()))
    if isinstance(error, errors.Unavailable):
        structlog.get_logger().warning("unavailable", cause=repr(error.__cause__ or error.detail))
        headers["Retry-After"] = UNAVAILABLE_RETRY_AFTER_SECONDS
    slug = slug_of(kind)
    return _respond(request, status, slug, title_of(slug), detail, field_errors, headers)


def _detail_of(error: errors.ReferralError) -> str:
    advice = HTTP_HINTS.get(type(error)) if error.detail == error.default_detail else None
    return f"{error.detail} {advice}" if advice else error.detail


def handle_http_exception(
    request: Request[Any, Any, Any], error: HTTPException
) -> Response[ProblemDetails]:
    """Answer with what the framework refused."""
    status, detail, field_errors = error.status_code, str(error.detail), []
    if detail == HTTPStatus(status).phrase or isinstance(error, NotFoundException):
        detail = HTTP_PROBLEMS.get(status, ("", detail))[1]
    if isinstance(error, ValidationFailed):
        field_errors = error.field_errors
    if isinstance(error, ValidationException):
        status, field_errors = 422, _parameter_errors(error)
        detail = "The request breaks the rules; 'errors' names each place."
        if any(fault.parameter == "data" for fault in field_errors):
            status, field_errors, detail = 400, [], "The body is empty. Send a JSON object."
    slug = slug_of(status)
    headers = {
        name: allow_header(value.split(", ")) if name.lower() == "allow" else value
        for name, value in (error.headers or {}).items()
    }
    return _respond(request, status, slug, title_of(slug), detail, field_errors, headers)


def allow_header(methods: Iterable[str]) -> str:
    """Return an Allow header: whatever can be had by GET can be asked about by HEAD."""
    known = set(methods)
    return ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))


def handle_unexpected_error(
    request: Request[Any, Any, Any], error: Exception
) -> Response[ProblemDetails]:
    """Answer 500, and log what happened."""
    structlog.get_logger().error("unforeseen error", exc_info=error)
    slug = slug_of(INTERNAL)
    return _respond(request, INTERNAL, slug, title_of(slug), HTTP_PROBLEMS[INTERNAL][1], [], {})


def slug_of(kind: type[errors.ReferralError] | int) -> str:
    """Return the slug of a core error, its name in kebab case, or of one of the framework."""
    if isinstance(kind, int):
        return HTTP_PROBLEMS.get(kind, ("http-error", ""))[0]
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def title_of(slug: str) -> str:
    """Return the title of a problem: its slug as words."""
    return slug.replace("-", " ").capitalize()


EXCEPTION_HANDLERS: dict[int | type[Exception], Callable[[Any, Any], Response[Any]]] = {
    errors.ReferralError: handle_core_error,
    HTTPException: handle_http_exception,
    Exception: handle_unexpected_error,
}


def _core_field_error(request: Request[Any, Any, Any], detail: str, field: str) -> FieldError:
    """Name the place that the core means: of a GET it is a parameter."""
    if request.method == "GET":
        return FieldError(detail, parameter=field)
    return FieldError(detail, pointer=f"/{field}")


def _bearer_challenge(request: Request[Any, Any, Any]) -> str:
    sent = "authorization" in request.headers
    return 'Bearer error="invalid_token"' if sent else "Bearer"


def _parameter_errors(error: ValidationException) -> list[FieldError]:
    missing = MISSING_PARAMETER_MESSAGE.match(str(error.detail))
    if missing:
        return [FieldError(missing["what"], parameter=missing["name"])]
    extra = error.extra if isinstance(error.extra, list) else []
    return [
        FieldError(str(entry["message"]), parameter=str(entry.get("key", ""))) for entry in extra
    ]


def _respond(
    request: Request[Any, Any, Any],
    status: int,
    slug: str,
    title: str,
    detail: str,
    field_errors: list[FieldError],
    headers: dict[str, str],
) -> Response[ProblemDetails]:
    problem = ProblemDetails(
        type=f"{request.app.state.public_url}/problems/{slug}",
        title=title,
        status=status,
        detail=detail,
        instance=_path(request.scope),
        request_id=request.scope["state"].get("request_id", ""),
        errors=field_errors,
    )
    return Response(problem, status_code=status, media_type=PROBLEM_MEDIA_TYPE, headers=headers)


def problem_details(scope: Scope, public_url: str, status: int, detail: str) -> ProblemDetails:
    """Make the document of a refusal that the framework never hears of."""
    slug, request_id = slug_of(status), scope["state"].get("request_id", "")
    return ProblemDetails(
        f"{public_url}/problems/{slug}", title_of(slug), status, detail, _path(scope), request_id
    )


def _path(scope: Scope) -> str:
    """Return the path as it was sent, which may hold what a URI does not."""
    return quote(scope.get("raw_path") or scope["path"].encode(), safe=PATH_SAFE_CHARACTERS)


def all_problems() -> dict[str, tuple[int, str]]:
    """Return status and description of every problem there is, by slug."""
    found = {slug: (status, text) for status, (slug, text) in HTTP_PROBLEMS.items()}
    kinds = [errors.ReferralError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind not in {errors.ReferralError, errors.Conflict, errors.Invalid, errors.Denied}:
            found[slug_of(kind)] = (status_of(kind), " ".join((kind.__doc__ or "").split()))
    return found


def problem_responses(*kinds: type[errors.ReferralError] | int) -> dict[int, ResponseSpec]:
    """Document the problems that a route answers with, by core error or by status."""
    slugs = [slug_of(kind) for kind in kinds]
    known = all_problems()
    specs: dict[int, ResponseSpec] = {}
    for status in sorted({known[slug][0] for slug in slugs}):
        mine = [slug for slug in slugs if known[slug][0] == status]
        specs[status] = ResponseSpec(
            data_container=ProblemDetails,
            generate_examples=False,
            description=" ".join(f"`{slug}`: {known[slug][1]}" for slug in mine),
            media_type=PROBLEM_MEDIA_TYPE,
            examples=[_example(slug, *known[slug]) for slug in mine],
        )
    return specs


def _example(slug: str, status: int, text: str) -> Example:
    problem = ProblemDetails(
        type=f"http://127.0.0.1:8000/problems/{slug}",
        title=title_of(slug),
        status=status,
        detail=text,
        instance="/api/v1/…",
        request_id="0198c2f0-7a3e-7bb1-8d5c-0d8f6a5e1c11",
        errors=[FieldError("Expected `str`, got `int`", pointer="/email")]
        if "errors" in text
        else [],
    )
    return Example(id=slug, summary=slug, value=msgspec.to_builtins(problem))


class ProblemTypesController(Controller):
    """What the `type` of a problem leads to."""

    path = "/problems"
    include_in_schema = False

    @get("/{slug:str}", media_type=MediaType.TEXT)
    async def describe(self, slug: FromPath[str]) -> str:
        """Describe a problem in a sentence or two."""
        known = all_problems()
        if slug not in known:
            raise NotFoundException
        status, text = known[slug]
        return f"{slug} (HTTP {status})\n\n{text}\n"
