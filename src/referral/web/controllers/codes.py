"""The referral codes of the authenticated user."""

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
    Code,
    CodeStatus,
    Expiry,
)
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.use_cases import codes
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_user
from referral.web.before_request import require_user
from referral.web.field_types import Timestamp
from referral.web.idempotency import (
    IdempotencyKey,
    StoredJsonResponse,
    idempotent_request,
    make_stored_response,
    replay_stored_user_response,
)
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.problem_types import (
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    READ_ERRORS,
    READ_ONE_ERRORS,
    WRITE_ERRORS,
    WRITE_ONE_ERRORS,
    problem_responses,
)
from referral.web.public_urls import PublicUrls
from referral.web.rate_limits import limit_by_account

# The core validates the bounds; here they are for the OpenAPI document and for JSON pointers.
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
    """The code to create. Exactly one of `expires_at` and `lifetime_minutes` is required."""

    expires_at: Annotated[
        Timestamp | None, Meta(description="1 minute to 365 days in the future, with a UTC offset.")
    ] = None
    lifetime_minutes: Annotated[
        LifetimeMinutes | None, Meta(description="Instead of `expires_at`.")
    ] = None
    code: Annotated[
        CustomCode | None, Meta(description="A custom text for the code.", examples=["ANN-2026"])
    ] = None
    max_uses: Annotated[
        MaxUses | None, Meta(description="How many users may register with it.")
    ] = None
    activate: Annotated[bool, Meta(description="Activate the code; true by default.")] = True
    replace: Annotated[
        bool,
        Meta(
            description="Deactivate the currently active code, instead of a conflict; false by "
            "default."
        ),
    ] = False


class RenewCodeRequest(Struct, forbid_unknown_fields=True):
    """The changes; omitted fields keep their value. `max_uses: null` removes the maximum."""

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
    def from_code(cls, code: Code, now: datetime, urls: PublicUrls) -> "CodeResponse":
        """Encode a code with its status at `now`."""
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


class CodesController(Controller):
    """Routes for the user's codes, of which at most one is active."""

    path = "/api/v1/me/codes"
    tags = ("My codes",)
    security = SECURITY_REQUIREMENTS
    before_request = staticmethod(require_user)
    dependencies = {"user_id": Provide(authenticate_user)}

    @post(
        operation_id="createCode",
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
                description="The code; its URL is in `Location`.",
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
        """Create a code and, unless `activate` is false, activate it."""

        def make_response(code: Code) -> StoredJsonResponse:
            body = CodeResponse.from_code(code, code.created_at, urls)
            return make_stored_response(201, body, f"{self.path}/{code.id}")

        new_code = codes.NewCode(
            expiry=Expiry(data.expires_at, data.lifetime_minutes),
            text=data.code,
            max_uses=data.max_uses,
            activate=data.activate,
            replace=data.replace,
        )
        idempotent = idempotent_request(request, idempotency_key, make_response)
        code = await issue_code(user_id, new_code, idempotent)
        location = f"{self.path}/{code.id}"
        return Response(
            CodeResponse.from_code(code, code.created_at, urls), headers={"Location": location}
        )

    @get(
        operation_id="listMyCodes",
        summary="List my codes",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
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
        """List the user's codes, newest first, without deleted ones."""
        list_key = ("codes", user_id, status)
        codes_page, now = await list_codes(
            user_id, status=status, after=page.after(*list_key), limit=page.limit
        )
        items = [CodeResponse.from_code(code, now, urls) for code in codes_page.items]
        return CodePageResponse(items, make_cursor(codes_page.next_after, *list_key))

    @get(
        "/active",
        operation_id="getActiveCode",
        summary="Get my active code",
        responses=problem_responses(*READ_ERRORS, errors.NoActiveCode),
    )
    @inject
    async def show_active(
        self,
        user_id: NamedDependency[UUID],
        show_active_code: FromDishka[codes.ShowActiveCode],
        urls: FromDishka[PublicUrls],
    ) -> CodeResponse:
        """Return the active code."""
        return CodeResponse.from_code(*await show_active_code(user_id), urls)

    @get(
        "/{code_id:uuid}",
        operation_id="getCode",
        summary="Get a code",
        responses=problem_responses(*READ_ONE_ERRORS),
    )
    @inject
    async def show(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        show_code: FromDishka[codes.ShowCode],
        urls: FromDishka[PublicUrls],
    ) -> CodeResponse:
        """Return one of the user's codes."""
        return CodeResponse.from_code(*await show_code(user_id, code_id), urls)

    @patch(
        "/{code_id:uuid}",
        operation_id="renewCode",
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
        """Change the expiry or the maximum number of uses. An expired code becomes active again
        unless it was deactivated or another code is active.
        """
        return CodeResponse.from_code(*await renew_code(user_id, code_id, _renewal(data)), urls)

    @delete(
        "/{code_id:uuid}",
        operation_id="deleteCode",
        summary="Delete a code",
        responses=problem_responses(*WRITE_ONE_ERRORS),
    )
    @inject
    async def delete(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        delete_code: FromDishka[codes.DeleteCode],
    ) -> None:
        """Delete a code permanently. No code can have its text again."""
        await delete_code(user_id, code_id)

    @post(
        "/{code_id:uuid}/activate",
        operation_id="activateCode",
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
        """Activate a code, and deactivate the previously active one."""
        return CodeResponse.from_code(*await activate_code(user_id, code_id), urls)

    @post(
        "/{code_id:uuid}/deactivate",
        operation_id="deactivateCode",
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
        """Deactivate a code until it is activated again."""
        return CodeResponse.from_code(*await deactivate_code(user_id, code_id), urls)


def _renewal(data: RenewCodeRequest) -> codes.CodeRenewal:
    expires_at, minutes = _none_if_unset(data.expires_at), _none_if_unset(data.lifetime_minutes)
    return codes.CodeRenewal(
        expiry=None if expires_at is None and minutes is None else Expiry(expires_at, minutes),
        max_uses=_none_if_unset(data.max_uses),
        unlimited=data.max_uses is None,
    )


def _none_if_unset(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value
