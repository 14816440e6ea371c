"""The catalogue of problem types (RFC 9457), and which of them each route documents."""

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import UNSET

from referral.core import errors
from referral.web.problems import (
    HTTP_PROBLEMS,
    PROBLEM_MEDIA_TYPE,
    FieldError,
    ProblemDetails,
    slug_of,
    status_of,
    title_of,
)

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
    slugs = [slug_of(one) for one in classes_or_statuses]
    known = all_problem_types()
    specs: dict[int, ResponseSpec] = {}
    for status in sorted({known[slug][0] for slug in slugs}):
        of_status = [slug for slug in slugs if known[slug][0] == status]
        specs[status] = ResponseSpec(
            data_container=ProblemDetails,
            generate_examples=False,
            description=" ".join(f"`{slug}`: {known[slug][1]}" for slug in of_status),
            media_type=PROBLEM_MEDIA_TYPE,
            examples=[_example(slug, *known[slug]) for slug in of_status],
        )
    return specs


def _example(slug: str, status: int, description: str) -> Example:
    field_error = FieldError("Expected `str`, got `int`", pointer="/email")
    problem = ProblemDetails(
        type=f"http://127.0.0.1:8000/problems/{slug}",
        code=slug,
        title=title_of(slug),
        status=status,
        detail=description,
        instance="/api/v1/…",
        request_id="0198c2f0-7a3e-7bb1-8d5c-0d8f6a5e1c11",
        errors=[field_error] if slug == slug_of(errors.InvalidRequest) else UNSET,
    )
    return Example(id=slug, summary=slug, value=msgspec.to_builtins(problem))
