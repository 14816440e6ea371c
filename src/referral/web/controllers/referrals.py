"""Who joined with whose code."""

from typing import Annotated
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, get
from litestar.di import NamedDependency, Provide
from litestar.params import PathParameter, QueryParameter
from msgspec import UNSET, Struct, UnsetType

from referral.core import errors
from referral.core.entities.clients import Caller
from referral.core.entities.referrals import ReferralListItem, ReferralStatus
from referral.core.use_cases.referrals import ListReferrals
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate
from referral.web.controllers.codes import Timestamp
from referral.web.injection import inject
from referral.web.parsing import PageRequest, make_cursor, provide_page_request
from referral.web.problems import problem_responses

UserId = Annotated[UUID, PathParameter(description="The id of the user who passed codes on.")]
StatusFilter = Annotated[
    ReferralStatus | None, QueryParameter(description="Only referrals of this status.")
]


class ReferralResponse(Struct):
    """Someone who joined; `email` and `code` are there for those who may see them."""

    id: UUID
    status: ReferralStatus
    joined_at: Timestamp
    email: str | UnsetType | None = UNSET
    code: str | UnsetType = UNSET


class ReferralPageResponse(Struct):
    """A page of referrals, newest first."""

    items: list[ReferralResponse]
    next_cursor: str | None


LIST_ERRORS = (
    errors.Unauthenticated,
    errors.InsufficientScope,
    errors.InvalidRequest,
    errors.Unavailable,
)


class ReferralsController(Controller):
    """The referrals of a user."""

    path = "/api/v1"
    tags = ("Referrals",)
    security = SECURITY_REQUIREMENTS
    dependencies = {
        "caller": Provide(authenticate),
        "page": Provide(provide_page_request, sync_to_thread=False),
    }

    @get(
        "/users/{user_id:uuid}/referrals",
        summary="List a user's referrals",
        responses=problem_responses(*LIST_ERRORS, errors.NotFound),
    )
    @inject
    async def list_of(
        self,
        user_id: UserId,
        caller: NamedDependency[Caller],
        page: NamedDependency[PageRequest],
        list_referrals: FromDishka[ListReferrals],
        status: StatusFilter = None,
    ) -> ReferralPageResponse:
        """List those who joined with a user's codes. Strangers see no addresses."""
        return await _page(list_referrals, caller, user_id, page, status)

    @get("/me/referrals", summary="List my referrals", responses=problem_responses(*LIST_ERRORS))
    @inject
    async def list_mine(
        self,
        caller: NamedDependency[Caller],
        page: NamedDependency[PageRequest],
        list_referrals: FromDishka[ListReferrals],
        status: StatusFilter = None,
    ) -> ReferralPageResponse:
        """List those who joined with one's own codes."""
        if caller.user_id is None:
            raise errors.InsufficientScope
        return await _page(list_referrals, caller, caller.user_id, page, status)


async def _page(
    list_referrals: ListReferrals,
    caller: Caller,
    user_id: UUID,
    page: PageRequest,
    status: ReferralStatus | None,
) -> ReferralPageResponse:
    list_key = ("referrals", user_id, status)
    found, in_full = await list_referrals(
        caller, user_id, status=status, after=page.after(*list_key), limit=page.limit
    )
    items = [_referral(joined, in_full=in_full) for joined in found.items]
    return ReferralPageResponse(items, make_cursor(found.next_after, *list_key))


def _referral(joined: ReferralListItem, *, in_full: bool) -> ReferralResponse:
    shown = ReferralResponse(joined.id, joined.status, joined.joined_at)
    if in_full:
        shown.email, shown.code = joined.email, joined.code
    return shown
