"""The catalogue of problem types (RFC 9457), and which of them each route documents."""

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import UNSET, UnsetType

from referral.core import errors
from referral.core.entities.passwords import MIN_PASSWORD_CHARACTERS
from referral.web.problems import (
    HTTP_PROBLEMS,
    INVALID_VALUES_DETAIL,
    PROBLEM_MEDIA_TYPE,
    FieldError,
    ProblemDetails,
    default_detail,
    slug_of,
    status_of,
    title_of,
)

EXAMPLE_PUBLIC_URL = "http://127.0.0.1:8000"
"""The public URL in the examples of the document. The service replaces it by its own."""

REQUEST_ID_EXAMPLE = "8c5e0d8f-6a5e-4c11-98c2-f07a3e7bb18d"

DETAIL_EXAMPLES = {
    "invalid-request": INVALID_VALUES_DETAIL,
    "malformed-request": "The body must be valid JSON in UTF-8: Input data was truncated",
    "unsupported-media-type": "Send the body as JSON, with 'Content-Type: application/json'.",
    "uri-too-long": "Send a query of at most 8,192 bytes and 100 parameters.",
    "weak-password": f"Use at least {MIN_PASSWORD_CHARACTERS} characters.",
}
"""Details of problems that have no default detail, or a more precise one."""

POINTER_EXAMPLES = {
    "code-taken": "/code",
    "email-taken": "/email",
    "email-undeliverable": "/email",
    "referral-code-unusable": "/referral_code",
    "token-unusable": "/token",
    "weak-password": "/password",
    "wrong-password": "/password",
}
"""Pointers of problems that have one field error, whose detail is that of the problem."""

INVALID_REQUEST_ERRORS = [FieldError("Must be a string.", pointer="/email")]

READ_ERRORS = (errors.Unauthenticated, errors.InsufficientScope, errors.Unavailable)
READ_ONE_ERRORS = (*READ_ERRORS, errors.NotFound)
WRITE_ERRORS = (*READ_ERRORS, errors.AccountBlocked)
WRITE_ONE_ERRORS = (*READ_ONE_ERRORS, errors.AccountBlocked)
BODY_ERRORS = (400, 408, 413, 415, errors.InvalidRequest)
IDEMPOTENCY_ERRORS = (errors.IdempotencyKeyInUse, errors.IdempotencyKeyReused)

ERROR_FAMILIES = {errors.ReferralError, errors.Conflict, errors.Invalid, errors.Denied}
"""Base classes that are never raised themselves."""


def all_problem_types() -> dict[str, tuple[int, str]]:
    """Return status and description of each problem type, by slug."""
    types = {slug: (status, text) for status, (slug, text) in HTTP_PROBLEMS.items()}
    pending = [errors.ReferralError]
    while pending:
        error_class = pending.pop()
        pending += error_class.__subclasses__()
        if error_class not in ERROR_FAMILIES:
            types[slug_of(error_class)] = (
                status_of(error_class),
                " ".join((error_class.__doc__ or "").split()),
            )
    return types


def problem_responses(
    *classes_or_statuses: type[errors.ReferralError] | int,
) -> dict[int, ResponseSpec]:
    """Document the problems that a route responds with, by core error or by HTTP status."""
    by_slug = {slug_of(one): one for one in classes_or_statuses}
    known = all_problem_types()
    specs: dict[int, ResponseSpec] = {}
    for status in sorted({known[slug][0] for slug in by_slug}):
        of_status = [slug for slug in sorted(by_slug) if known[slug][0] == status]
        specs[status] = ResponseSpec(
            data_container=ProblemDetails,
            generate_examples=False,
            description=" ".join(f"`{slug}`: {known[slug][1]}" for slug in of_status),
            media_type=PROBLEM_MEDIA_TYPE,
            examples=[_example(slug, status, by_slug[slug]) for slug in of_status],
        )
    return specs


def _example(slug: str, status: int, class_or_status: type[errors.ReferralError] | int) -> Example:
    detail = DETAIL_EXAMPLES.get(slug) or default_detail(class_or_status)
    field_errors: list[FieldError] | UnsetType = UNSET
    if slug in POINTER_EXAMPLES:
        field_errors = [FieldError(detail, pointer=POINTER_EXAMPLES[slug])]
    problem = ProblemDetails(
        type=f"{EXAMPLE_PUBLIC_URL}/problems/{slug}",
        code=slug,
        title=title_of(slug),
        status=status,
        detail=detail,
        instance="",
        request_id=REQUEST_ID_EXAMPLE,
        errors=INVALID_REQUEST_ERRORS if slug == "invalid-request" else field_errors,
    )
    return Example(id=slug, summary=title_of(slug), value=msgspec.to_builtins(problem))
