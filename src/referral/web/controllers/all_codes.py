"""The referral codes of all users."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Struct

from referral.core import errors
from referral.core.entities.clients import Caller
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.searches import CodeFilter
from referral.core.use_cases.code_administration import DeactivateAnyCode, ListAllCodes
from referral.web.auth import authenticate
from referral.web.controllers.codes import CodeResponse
from referral.web.field_types import Reason
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import (
    BODY_ERRORS,
    READ_ERRORS,
    READ_ONE_ERRORS,
    problem_responses,
)
from referral.web.public_urls import PublicUrls

CodeFilterParameter = Annotated[
    str | None, QueryParameter(description="Only the code with this text, in any case.")
]


class ReasonRequest(Struct, forbid_unknown_fields=True):
    """Why, for the audit log."""

    reason: Reason


class OwnedCodeResponse(CodeResponse):
    """A referral code and its owner."""

    user_id: UUID

    @classmethod
    def from_owned_code(cls, code: Code, now: datetime, urls: PublicUrls) -> "OwnedCodeResponse":
        """Encode a code with its status at `now`."""
        fields = CodeResponse.from_code(code, now, urls)
        values = {name: getattr(fields, name) for name in CodeResponse.__struct_fields__}
        return cls(**values, user_id=code.user_id)


class OwnedCodePageResponse(Struct):
    """A page of codes, newest first."""

    items: list[OwnedCodeResponse]
    next_cursor: str | None


class AllCodesController(Controller):
    """Routes for the codes of all users."""

    path = "/api/v1/codes"
    tags = ("Administration",)

    @get(
        summary="List all codes",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listAllCodes"),
    )
    @inject
    async def list_all(
        self,
        request: Request[Any, Any, Any],
        page: NamedDependency[PageRequest],
        list_codes: FromDishka[ListAllCodes],
        urls: FromDishka[PublicUrls],
        code: CodeFilterParameter = None,
        user_id: Annotated[
            UUID | None, QueryParameter(description="Only the codes of this user.")
        ] = None,
        status: Annotated[
            CodeStatus | None, QueryParameter(description="Only codes of this status.")
        ] = None,
    ) -> OwnedCodePageResponse:
        """List the codes of all users, newest first, without deleted ones."""
        code = request.query_params.get("code", code)  # Litestar converts the text "null" to None
        list_key = ("all-codes", code, user_id, status)
        found, now = await list_codes(
            CodeFilter(code, user_id, status), after=page.after(*list_key), limit=page.limit
        )
        items = [OwnedCodeResponse.from_owned_code(each, now, urls) for each in found.items]
        return OwnedCodePageResponse(items, make_cursor(found.next_after, *list_key))

    @post(
        "/{code_id:uuid}/deactivate",
        summary="Deactivate a user's code",
        status_code=200,
        dependencies={"caller": Provide(authenticate)},
        responses=problem_responses(*READ_ONE_ERRORS, *BODY_ERRORS),
        **permitted("deactivateAnyCode"),
    )
    @inject
    async def deactivate(
        self,
        code_id: Annotated[UUID, PathParameter(description="The id of a code.")],
        caller: NamedDependency[Caller],
        data: JSONBody[ReasonRequest],
        deactivate_code: FromDishka[DeactivateAnyCode],
        urls: FromDishka[PublicUrls],
    ) -> OwnedCodeResponse:
        """Deactivate a code of any user. Its owner can activate it again, unless blocked."""
        code, now = await deactivate_code(code_id, caller.actor, data.reason)
        return OwnedCodeResponse.from_owned_code(code, now, urls)
