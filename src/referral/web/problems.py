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

STATUSES: dict[type[errors.ReferralError], int] = {
    errors.Unauthenticated: 401,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.Denied: 403,
    errors.TooManyRequests: 429,
    errors.Unavailable: 503,
}
"""The one table of statuses; a class takes the first entry on its line of ancestors."""

IN_PATHS = "%/:@!$&'()*+,;="
"""What stands for itself in a path, beside letters and digits (RFC 3986, section 3.3)."""

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "2"

FRAMEWORK = {
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

FAULT = re.compile(
    r"(?P<what>.*? field `(?P<name>.*?)`|.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL
)
"""What msgspec says: what is wrong, the field where one is unknown or missing, and the place."""

MAX_FAULT = 500
"""How long a message of msgspec's may be: it repeats the name of an unknown field."""

PARAMETER = re.compile(r"(?P<what>Missing required \w+ parameter) '(?P<name>\w+)'")
"""What Litestar says."""


class Fault(msgspec.Struct, omit_defaults=True):
    """One place of the request that breaks a rule."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[Fault] = []


class Malformed(HTTPException):
    """The body is no JSON."""

    status_code = 400


class ContentTooLarge(HTTPException):
    """The body is too long, or comes in too many chunks."""

    status_code = 413


class RequestTimeout(HTTPException):
    """The body did not come in time."""

    status_code = 408


class Misfit(HTTPException):
    """The body is JSON and does not fit, or a parameter does not."""

    status_code = 422

    def __init__(self, *faults: Fault) -> None:
        """Take each place that breaks a rule."""
        super().__init__("The request breaks the rules; 'errors' names each place.")
        self.faults = list(faults)


ADVICE: dict[type[errors.ReferralError], str] = {
    errors.Unauthenticated: "Send it as 'Authorization: Bearer <token>'.",
}
"""What HTTP adds to the detail of an error that the core gave none of its own."""


def status_of(kind: type[errors.ReferralError]) -> int:
    """Return the HTTP status of a core error."""
    return next(STATUSES[ancestor] for ancestor in kind.__mro__ if ancestor in STATUSES)


def body_fault(error: msgspec.ValidationError) -> Fault:
    """Turn msgspec's message, which ends in a path, into a fault with a JSON pointer."""
    if len(str(error)) > MAX_FAULT:
        return Fault("A name in the body is too long to be that of a field.", pointer="")
    found = FAULT.fullmatch(str(error))
    if found is None:
        return Fault(str(error), pointer="")
    pointer = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", found["path"] or "").replace(".", "/")
    if found["name"] is not None:
        pointer += "/" + found["name"].replace("~", "~0").replace("/", "~1")
    return Fault(found["what"], pointer=pointer)


def core_problem(request: Request[Any, Any, Any], error: errors.ReferralError) -> Response[Problem]:
    """Answer with what the core refused."""
    status, kind = status_of(type(error)), type(error)
    detail = _detail_of(error)
    faults = [_core_fault(request, detail, error.field)] if error.field else []
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _challenge(request)
    if isinstance(error, errors.InsufficientScope):
        headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    if isinstance(error, errors.TooManyRequests):
        headers["Retry-After"] = str(math.ceil(error.retry_after.total_seconds()))
    if isinstance(error, errors.Unavailable):
        structlog.get_logger().warning("unavailable", cause=repr(error.__cause__ or error.detail))
        headers["Retry-After"] = RETRY_AFTER
    slug = slug_of(kind)
    return _answer(request, status, slug, title_of(slug), detail, faults, headers)


def _detail_of(error: errors.ReferralError) -> str:
    advice = ADVICE.get(type(error)) if error.detail == error.default else None
    return f"{error.detail} {advice}" if advice else error.detail


def framework_problem(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Answer with what the framework refused."""
    status, detail, faults = error.status_code, str(error.detail), []
    if detail == HTTPStatus(status).phrase or isinstance(error, NotFoundException):
        detail = FRAMEWORK.get(status, ("", detail))[1]
    if isinstance(error, Misfit):
        faults = error.faults
    if isinstance(error, ValidationException):
        status, faults = 422, _parameter_faults(error)
        detail = "The request breaks the rules; 'errors' names each place."
        if any(fault.parameter == "data" for fault in faults):
            status, faults, detail = 400, [], "The body is empty. Send a JSON object."
    slug = slug_of(status)
    headers = {
        name: with_head(value.split(", ")) if name.lower() == "allow" else value
        for name, value in (error.headers or {}).items()
    }
    return _answer(request, status, slug, title_of(slug), detail, faults, headers)


def with_head(methods: Iterable[str]) -> str:
    """Return an Allow header: whatever can be had by GET can be asked about by HEAD."""
    known = set(methods)
    return ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))


def unforeseen_problem(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer 500, and log what happened."""
    structlog.get_logger().error("unforeseen error", exc_info=error)
    slug = slug_of(INTERNAL)
    return _answer(request, INTERNAL, slug, title_of(slug), FRAMEWORK[INTERNAL][1], [], {})


def slug_of(kind: type[errors.ReferralError] | int) -> str:
    """Return the slug of a core error, its name in kebab case, or of one of the framework."""
    if isinstance(kind, int):
        return FRAMEWORK.get(kind, ("http-error", ""))[0]
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def title_of(slug: str) -> str:
    """Return the title of a problem: its slug as words."""
    return slug.replace("-", " ").capitalize()


HANDLERS: dict[int | type[Exception], Callable[[Any, Any], Response[Any]]] = {
    errors.ReferralError: core_problem,
    HTTPException: framework_problem,
    Exception: unforeseen_problem,
}


def _core_fault(request: Request[Any, Any, Any], detail: str, field: str) -> Fault:
    """Name the place that the core means: of a GET it is a parameter."""
    if request.method == "GET":
        return Fault(detail, parameter=field)
    return Fault(detail, pointer=f"/{field}")


def _challenge(request: Request[Any, Any, Any]) -> str:
    sent = "authorization" in request.headers
    return 'Bearer error="invalid_token"' if sent else "Bearer"


def _parameter_faults(error: ValidationException) -> list[Fault]:
    missing = PARAMETER.match(str(error.detail))
    if missing:
        return [Fault(missing["what"], parameter=missing["name"])]
    extra = error.extra if isinstance(error.extra, list) else []
    return [Fault(str(entry["message"]), parameter=str(entry.get("key", ""))) for entry in extra]


def _answer(
    request: Request[Any, Any, Any],
    status: int,
    slug: str,
    title: str,
    detail: str,
    faults: list[Fault],
    headers: dict[str, str],
) -> Response[Problem]:
    problem = Problem(
        type=f"{request.app.state.public_url}/problems/{slug}",
        title=title,
        status=status,
        detail=detail,
        instance=_path(request.scope),
        request_id=request.scope["state"].get("request_id", ""),
        errors=faults,
    )
    return Response(problem, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def problem(scope: Scope, public_url: str, status: int, detail: str) -> Problem:
    """Make the document of a refusal that the framework never hears of."""
    slug, request_id = slug_of(status), scope["state"].get("request_id", "")
    return Problem(
        f"{public_url}/problems/{slug}", title_of(slug), status, detail, _path(scope), request_id
    )


def _path(scope: Scope) -> str:
    """Return the path as it was sent, which may hold what a URI does not."""
    return quote(scope.get("raw_path") or scope["path"].encode(), safe=IN_PATHS)


def all_problems() -> dict[str, tuple[int, str]]:
    """Return status and description of every problem there is, by slug."""
    found = {slug: (status, text) for status, (slug, text) in FRAMEWORK.items()}
    kinds = [errors.ReferralError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind not in {errors.ReferralError, errors.Conflict, errors.Invalid, errors.Denied}:
            found[slug_of(kind)] = (status_of(kind), " ".join((kind.__doc__ or "").split()))
    return found


def problems(*kinds: type[errors.ReferralError] | int) -> dict[int, ResponseSpec]:
    """Document the problems that a route answers with, by core error or by status."""
    slugs = [slug_of(kind) for kind in kinds]
    known = all_problems()
    specs: dict[int, ResponseSpec] = {}
    for status in sorted({known[slug][0] for slug in slugs}):
        mine = [slug for slug in slugs if known[slug][0] == status]
        specs[status] = ResponseSpec(
            data_container=Problem,
            generate_examples=False,
            description=" ".join(f"`{slug}`: {known[slug][1]}" for slug in mine),
            media_type=MEDIA_TYPE,
            examples=[_example(slug, *known[slug]) for slug in mine],
        )
    return specs


def _example(slug: str, status: int, text: str) -> Example:
    problem = Problem(
        type=f"http://127.0.0.1:8000/problems/{slug}",
        title=title_of(slug),
        status=status,
        detail=text,
        instance="/api/v1/…",
        request_id="0198c2f0-7a3e-7bb1-8d5c-0d8f6a5e1c11",
        errors=[Fault("Expected `str`, got `int`", pointer="/email")] if "errors" in text else [],
    )
    return Example(id=slug, summary=slug, value=msgspec.to_builtins(problem))


class Problems(Controller):
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
