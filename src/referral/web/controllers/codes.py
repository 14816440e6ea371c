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
    MAX_LIFETIME,
    MAX_USES,
    MIN_CODE_CHARACTERS,
    MIN_LIFETIME,
    MINUTE,
    CodeStatus,
    Expiry,
)
from referral.core.entities.codes import Code as Entity
from referral.core.entities.limits import LimitGroup
from referral.core.use_cases import codes
from referral.web.auth import SECURITY, identify_user
from referral.web.idempotency import (
    IdempotencyKey,
    StoredResponse,
    attempt_of,
    make_answer,
    recall_user,
)
from referral.web.injection import inject
from referral.web.links import Links
from referral.web.parsing import PageRequest, check_user, make_cursor, provide_page
from referral.web.problems import problems
from referral.web.rate_limits import by_account

Time = Annotated[datetime, Meta(tz=True, examples=["2026-12-31T23:59:59Z"])]
# The bounds are for the document, and for errors that name all faults; the core keeps them itself.
Minutes = Annotated[
    int, Meta(ge=MIN_LIFETIME // MINUTE, le=MAX_LIFETIME // MINUTE, examples=[10_080])
]
Uses = Annotated[int, Meta(ge=1, le=MAX_USES, examples=[100])]
Wording = Annotated[
    str,
    Meta(min_length=MIN_CODE_CHARACTERS, max_length=MAX_CODE_CHARACTERS, pattern="^[A-Za-z0-9-]+$"),
]
CodeId = Annotated[UUID, PathParameter(description="The id of one of your codes.")]


class NewCode(Struct, forbid_unknown_fields=True):
    """A code to be made: one of `expires_at` and `lifetime_minutes`, the rest as you like."""

    expires_at: Annotated[
        Time | None, Meta(description="1 minute to 365 days ahead, with an offset.")
    ] = None
    lifetime_minutes: Annotated[Minutes | None, Meta(description="Instead of `expires_at`.")] = None
    code: Annotated[
        Wording | None, Meta(description="Your own wording.", examples=["ANN-2026"])
    ] = None
    max_uses: Annotated[Uses | None, Meta(description="How many may join with it.")] = None
    activate: Annotated[bool, Meta(description="Put it in force at once.")] = True
    replace: Annotated[bool, Meta(description="Retire the code that is in force now.")] = False


class Renewal(Struct, forbid_unknown_fields=True):
    """What is to change; what is left out stays. `max_uses: null` takes the maximum away."""

    expires_at: Time | UnsetType = UNSET
    lifetime_minutes: Minutes | UnsetType = UNSET
    max_uses: Uses | UnsetType | None = UNSET


class Code(Struct):
    """A referral code."""

    id: UUID
    code: str
    status: CodeStatus
    expires_at: Time
    created_at: Time
    uses: int
    max_uses: int | None
    url: str

    @classmethod
    def of(cls, code: Entity, now: datetime, links: Links) -> "Code":
        """Show a code as it is at `now`."""
        return cls(
            id=code.id,
            code=code.text,
            status=code.status(now),
            expires_at=code.expires_at,
            created_at=code.created_at,
            uses=code.uses,
            max_uses=code.max_uses,
            url=links.share(code.text),
        )


class CodePage(Struct):
    """A page of codes, newest first."""

    items: list[Code]
    next_cursor: str | None


T = TypeVar("T")

COMMON_ERRORS = (errors.Unauthenticated, errors.InsufficientScope, errors.Unavailable)
ONE = (*COMMON_ERRORS, errors.NotFound)
CHANGE = (*COMMON_ERRORS, errors.AccountBlocked)
CHANGE_ONE = (*ONE, errors.AccountBlocked)
BODY = (400, 408, 413, 415, errors.InvalidRequest)
REPEATED = (errors.IdempotencyKeyInUse, errors.IdempotencyKeyReused)


class Codes(Controller):
    """Making, renewing, swapping and deleting one's own codes; one is in force at a time."""

    path = "/api/v1/me/codes"
    tags = ("My codes",)
    security = SECURITY
    before_request = staticmethod(check_user)
    dependencies = {"user_id": Provide(identify_user)}

    @post(
        summary="Create a code",
        guards=[by_account(LimitGroup.CODES)],
        before_request=recall_user,
        responses=problems(
            *CHANGE, *BODY, *REPEATED,
            errors.ActiveCodeExists, errors.CodeTaken, errors.TooManyRequests,
        )
        | {
            201: ResponseSpec(
                Code, generate_examples=False, description="The code; `Location` leads to it."
            )
        },
    )  # fmt: skip
    @inject
    async def create(
        self,
        request: Request[Any, Any, Any],
        user_id: NamedDependency[UUID],
        data: JSONBody[NewCode],
        use: FromDishka[codes.IssueCode],
        links: FromDishka[Links],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Code]:
        """Make a code and, unless told otherwise, put it in force."""

        def answer(code: Entity) -> StoredResponse:
            shown = Code.of(code, code.created_at, links)
            return make_answer(201, shown, f"{self.path}/{code.id}")

        wanted = codes.NewCode(
            expiry=Expiry(data.expires_at, data.lifetime_minutes),
            text=data.code,
            max_uses=data.max_uses,
            activate=data.activate,
            replace=data.replace,
        )
        attempt = attempt_of(request, idempotency_key, answer)
        code = await use(user_id, wanted, attempt)
        location = f"{self.path}/{code.id}"
        return Response(Code.of(code, code.created_at, links), headers={"Location": location})

    @get(
        summary="List my codes",
        dependencies={"page": Provide(provide_page, sync_to_thread=False)},
        responses=problems(*COMMON_ERRORS, errors.InvalidRequest),
    )
    @inject
    async def list_all(
        self,
        user_id: NamedDependency[UUID],
        page: NamedDependency[PageRequest],
        use: FromDishka[codes.ListCodes],
        links: FromDishka[Links],
        status: Annotated[
            CodeStatus | None, QueryParameter(description="Only codes of this status.")
        ] = None,
    ) -> CodePage:
        """List one's codes, newest first; deleted ones are gone."""
        this = ("codes", user_id, status)
        found, now = await use(user_id, status=status, after=page.after(*this), limit=page.limit)
        items = [Code.of(code, now, links) for code in found.items]
        return CodePage(items, make_cursor(found.after, *this))

    @get(
        "/active",
        summary="Show my active code",
        responses=problems(*COMMON_ERRORS, errors.NoActiveCode),
    )
    @inject
    async def show_active(
        self,
        user_id: NamedDependency[UUID],
        use: FromDishka[codes.ShowActiveCode],
        links: FromDishka[Links],
    ) -> Code:
        """Show the code that is in force."""
        return Code.of(*await use(user_id), links)

    @get("/{code_id:uuid}", summary="Show a code", responses=problems(*ONE))
    @inject
    async def show(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        use: FromDishka[codes.ShowCode],
        links: FromDishka[Links],
    ) -> Code:
        """Show one of one's codes."""
        return Code.of(*await use(user_id, code_id), links)

    @patch("/{code_id:uuid}", summary="Renew a code", responses=problems(*CHANGE_ONE, *BODY))
    @inject
    async def renew(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        data: JSONBody[Renewal],
        use: FromDishka[codes.RenewCode],
        links: FromDishka[Links],
    ) -> Code:
        """Give a code another end or maximum. One that had expired is in force again, unless
        it was deactivated or another one took its place.
        """
        return Code.of(*await use(user_id, code_id, _renewal(data)), links)

    @delete("/{code_id:uuid}", summary="Delete a code", responses=problems(*CHANGE_ONE))
    @inject
    async def delete(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        use: FromDishka[codes.DeleteCode],
    ) -> None:
        """Delete a code for good. Nobody can have its text again, not even its owner."""
        await use(user_id, code_id)

    @post(
        "/{code_id:uuid}/activate",
        summary="Activate a code",
        status_code=200,
        responses=problems(*CHANGE_ONE, errors.CodeExpired, errors.CodeExhausted),
    )
    @inject
    async def activate(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        use: FromDishka[codes.ActivateCode],
        links: FromDishka[Links],
    ) -> Code:
        """Put a code in force, and the one that was in force out of it."""
        return Code.of(*await use(user_id, code_id), links)

    @post(
        "/{code_id:uuid}/deactivate",
        summary="Deactivate a code",
        status_code=200,
        responses=problems(*CHANGE_ONE),
    )
    @inject
    async def deactivate(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        use: FromDishka[codes.DeactivateCode],
        links: FromDishka[Links],
    ) -> Code:
        """Take a code out of force until it is activated again."""
        return Code.of(*await use(user_id, code_id), links)


def _renewal(data: Renewal) -> codes.Renewal:
    at, minutes = _set(data.expires_at), _set(data.lifetime_minutes)
    return codes.Renewal(
        expiry=None if at is None and minutes is None else Expiry(at, minutes),
        max_uses=_set(data.max_uses),
        unlimited=data.max_uses is None,
    )


def _set(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value
