"""The referral codes of whoever is signed in."""

from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from referral.core import errors
from referral.core.entities.codes import (
    MAX_CODE_CHARACTERS,
    MAX_CODE_LIFETIME,
    MAX_USES,
    MIN_CODE_CHARACTERS,
    MIN_CODE_LIFETIME,
    MINUTE,
    CodeStatus,
    Expiry,
)
from referral.core.entities.codes import Code as Entity
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.use_cases import codes
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_user
from referral.web.idempotency import (
    IdempotencyKey,
    StoredJsonResponse,
    idempotent_request,
    make_stored_response,
    replay_stored_user_response,
)
from referral.web.injection import inject
from referral.web.links import PublicUrls
from referral.web.parsing import PageRequest, make_cursor, provide_page_request, require_user
from referral.web.problems import problem_responses
from referral.web.rate_limits import limit_by_account

Timestamp = Annotated[datetime, Meta(tz=True, examples=["2026-12-31T23:59:59Z"])]
# The bounds are for the document, and for errors that name all faults; the core keeps them itself.
LifetimeMinutes = Annotated[
    int, Meta(ge=MIN_CODE_LIFETIME // MINUTE, le=MAX_CODE_LIFETIME // MINUTE, examples=[10_080])
]
MaxUses = Annotated[int, Meta(ge=1, le=MAX_USES, examples=[100])]
CustomCode = Annotated[
    str,
    Meta(min_length=MIN_CODE_CHARACTERS, max_length=MAX_CODE_CHARACTERS, pattern="^[A-Za-z0-9-]+$"),
]
CodeId = Annotated[UUID, PathParameter(description="The id of one of your codes.")]


class CreateCodeRequest(Struct, forbid_unknown_fields=True):
    """A code to be made: one of `expires_at` and `lifetime_minutes`, the rest as you like."""

    expires_at: Annotated[
        Timestamp | None, Meta(description="1 minute to 365 days ahead, with an offset.")
    ] = None
    lifetime_minutes: Annotated[
        LifetimeMinutes | None, Meta(description="Instead of `expires_at`.")
    ] = None
    code: Annotated[
        CustomCode | None, Meta(description="Your own wording.", examples=["ANN-2026"])
    ] = None
    max_uses: Annotated[MaxUses | None, Meta(description="How many may join with it.")] = None
    activate: Annotated[bool, Meta(description="Put it in force at once.")] = True
    replace: Annotated[bool, Meta(description="Retire the code that is in force now.")] = False


class RenewCodeRequest(Struct, forbid_unknown_fields=True):
    """What is to change; what is left out stays. `max_uses: null` takes the maximum away."""

    expires_at: Timestamp | UnsetType = UNSET
    lifetime_minutes: LifetimeMinutes | UnsetType = UNSET
    max_uses: MaxUses | UnsetType | None = UNSET


class CodeResponse(Struct):
    """A referral code."""

    id: UUID
    code: str
    status: CodeStatus
    expires_at: Timestamp
    created_at: Timestamp
    uses: int
    max_uses: int | None
    url: str

    @classmethod
    def from_code(cls, code: Entity, now: datetime, urls: PublicUrls) -> "CodeResponse":
        """Show a code as it is at `now`."""
        return cls(
            id=code.id,
            code=code.text,
            status=code.status(now),
            expires_at=code.expires_at,
            created_at=code.created_at,
            uses=code.uses,
            max_uses=code.max_uses,
            url=urls.share(code.text),
        )


class CodePageResponse(Struct):
    """A page of codes, newest first."""

    items: list[CodeResponse]
    next_cursor: str | None


T = TypeVar("T")

READ_ERRORS = (errors.Unauthenticated, errors.InsufficientScope, errors.Unavailable)
READ_ONE_ERRORS = (*READ_ERRORS, errors.NotFound)
WRITE_ERRORS = (*READ_ERRORS, errors.AccountBlocked)
WRITE_ONE_ERRORS = (*READ_ONE_ERRORS, errors.AccountBlocked)
BODY_ERRORS = (400, 408, 413, 415, errors.InvalidRequest)
IDEMPOTENCY_ERRORS = (errors.IdempotencyKeyInUse, errors.IdempotencyKeyReused)


class CodesController(Controller):
    """Making, renewing, swapping and deleting one's own codes; one is in force at a time."""

    path = "/api/v1/me/codes"
    tags = ("My codes",)
    security = SECURITY_REQUIREMENTS
    before_request = staticmethod(require_user)
    dependencies = {"user_id": Provide(authenticate_user)}

    @post(
        summary="Create a code",
        guards=[limit_by_account(RateLimitGroup.CODES)],
        before_request=replay_stored_user_response,
        responses=problem_responses(
            *WRITE_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS,
            errors.ActiveCodeExists, errors.CodeTaken, errors.TooManyRequests,
        )
        | {
            201: ResponseSpec(
                CodeResponse,
                generate_examples=False,
                description="The code; `Location` leads to it.",
            )
        },
    )  # fmt: skip
    @inject
    async def create(
        self,
        request: Request[Any, Any, Any],
        user_id: NamedDependency[UUID],
        data: JSONBody[CreateCodeRequest],
        issue_code: FromDishka[codes.IssueCode],
        urls: FromDishka[PublicUrls],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[CodeResponse]:
        """Make a code and, unless told otherwise, put it in force."""

        def answer(code: Entity) -> StoredJsonResponse:
            shown = CodeResponse.from_code(code, code.created_at, urls)
            return make_stored_response(201, shown, f"{self.path}/{code.id}")

        new_code = codes.NewCode(
            expiry=Expiry(data.expires_at, data.lifetime_minutes),
            text=data.code,
            max_uses=data.max_uses,
            activate=data.activate,
            replace=data.replace,
        )
        idempotent = idempotent_request(request, idempotency_key, answer)
        code = await issue_code(user_id, new_code, idempotent)
        location = f"{self.path}/{code.id}"
        return Response(
            CodeResponse.from_code(code, code.created_at, urls), headers={"Location": location}
        )

    @get(
        summary="List my codes",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(*READ_ERRORS, errors.InvalidRequest),
    )
    @inject
    async def list_all(
        self,
        user_id: NamedDependency[UUID],
        page: NamedDependency[PageRequest],
        list_codes: FromDishka[codes.ListCodes],
        urls: FromDishka[PublicUrls],
        status: Annotated[
            CodeStatus | None, QueryParameter(description="Only codes of this status.")
        ] = None,
    ) -> CodePageResponse:
        """List one's codes, newest first; deleted ones are gone."""
        list_key = ("codes", user_id, status)
        found, now = await list_codes(
            user_id, status=status, after=page.after(*list_key), limit=page.limit
        )
        items = [CodeResponse.from_code(code, now, urls) for code in found.items]
        return CodePageResponse(items, make_cursor(found.next_after, *list_key))

    @get(
        "/active",
        summary="Show my active code",
        responses=problem_responses(*READ_ERRORS, errors.NoActiveCode),
    )
    @inject
    async def show_active(
        self,
        user_id: NamedDependency[UUID],
        show_active_code: FromDishka[codes.ShowActiveCode],
        urls: FromDishka[PublicUrls],
    ) -> CodeResponse:
        """Show the code that is in force."""
        return CodeResponse.from_code(*await show_active_code(user_id), urls)

    @get("/{code_id:uuid}", summary="Show a code", responses=problem_responses(*READ_ONE_ERRORS))
    @inject
    async def show(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        show_code: FromDishka[codes.ShowCode],
        urls: FromDishka[PublicUrls],
    ) -> CodeResponse:
        """Show one of one's codes."""
        return CodeResponse.from_code(*await show_code(user_id, code_id), urls)

    @patch(
        "/{code_id:uuid}",
        summary="Renew a code",
        responses=problem_responses(*WRITE_ONE_ERRORS, *BODY_ERRORS),
    )
    @inject
    async def renew(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        data: JSONBody[RenewCodeRequest],
        renew_code: FromDishka[codes.RenewCode],
        urls: FromDishka[PublicUrls],
    ) -> CodeResponse:
        """Give a code another end or maximum. One that had expired is in force again, unless
        it was deactivated or another one took its place.
        """
        return CodeResponse.from_code(*await renew_code(user_id, code_id, _renewal(data)), urls)

    @delete(
        "/{code_id:uuid}", summary="Delete a code", responses=problem_responses(*WRITE_ONE_ERRORS)
    )
    @inject
    async def delete(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        delete_code: FromDishka[codes.DeleteCode],
    ) -> None:
        """Delete a code for good. Nobody can have its text again, not even its owner."""
        await delete_code(user_id, code_id)

    @post(
        "/{code_id:uuid}/activate",
        summary="Activate a code",
        status_code=200,
        responses=problem_responses(*WRITE_ONE_ERRORS, errors.CodeExpired, errors.CodeExhausted),
    )
    @inject
    async def activate(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        activate_code: FromDishka[codes.ActivateCode],
        urls: FromDishka[PublicUrls],
    ) -> CodeResponse:
        """Put a code in force, and the one that was in force out of it."""
        return CodeResponse.from_code(*await activate_code(user_id, code_id), urls)

    @post(
        "/{code_id:uuid}/deactivate",
        summary="Deactivate a code",
        status_code=200,
        responses=problem_responses(*WRITE_ONE_ERRORS),
    )
    @inject
    async def deactivate(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        deactivate_code: FromDishka[codes.DeactivateCode],
        urls: FromDishka[PublicUrls],
    ) -> CodeResponse:
        """Take a code out of force until it is activated again."""
        return CodeResponse.from_code(*await deactivate_code(user_id, code_id), urls)


def _renewal(data: RenewCodeRequest) -> codes.CodeRenewal:
    at, minutes = _none_if_unset(data.expires_at), _none_if_unset(data.lifetime_minutes)
    return codes.CodeRenewal(
        expiry=None if at is None and minutes is None else Expiry(at, minutes),
        max_uses=_none_if_unset(data.max_uses),
        unlimited=data.max_uses is None,
    )


def _none_if_unset(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value
