"""The referrals of a user: who registered with the user's codes."""

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
from referral.web.field_types import Timestamp
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import CONDITIONAL_SCOPES
from referral.web.problem_types import problem_responses

UserId = Annotated[UUID, PathParameter(description="The id of the referrer.")]
StatusFilter = Annotated[
    ReferralStatus | None, QueryParameter(description="Only referrals of this status.")
]


class ReferralResponse(Struct):
    """A referred user; `email` and `code` are present only if the caller may see them."""

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
    414,
    errors.Unauthenticated,
    errors.InsufficientScope,
    errors.InvalidRequest,
    errors.Unavailable,
)


class ReferralsController(Controller):
    """Routes for lists of referrals."""

    path = "/api/v1"
    tags = ("Referrals",)
    security = SECURITY_REQUIREMENTS
    dependencies = {
        "caller": Provide(authenticate),
        "page": Provide(provide_page_request, sync_to_thread=False),
    }

    @get(
        "/users/{user_id:uuid}/referrals",
        operation_id="listUserReferrals",
        summary="List a user's referrals",
        security=[{"clientCredentials": [CONDITIONAL_SCOPES["listUserReferrals"]]}],
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
        """List the users who registered with a user's codes. E-mail addresses are shown to the
        referrer, admins and clients; to other users only if the service is configured so.
        """
        return await _page(list_referrals, caller, user_id, page, status)

    @get(
        "/me/referrals",
        operation_id="listMyReferrals",
        summary="List my referrals",
        responses=problem_responses(*LIST_ERRORS),
    )
    @inject
    async def list_mine(
        self,
        caller: NamedDependency[Caller],
        page: NamedDependency[PageRequest],
        list_referrals: FromDishka[ListReferrals],
        status: StatusFilter = None,
    ) -> ReferralPageResponse:
        """List the users who registered with the authenticated user's codes."""
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
    referrals, shows_details = await list_referrals(
        caller, user_id, status=status, after=page.after(*list_key), limit=page.limit
    )
    items = [_referral(item, shows_details=shows_details) for item in referrals.items]
    return ReferralPageResponse(items, make_cursor(referrals.next_after, *list_key))


def _referral(item: ReferralListItem, *, shows_details: bool) -> ReferralResponse:
    referral = ReferralResponse(item.id, item.status, item.joined_at)
    if shows_details:
        referral.email, referral.code = item.email, item.code or UNSET
    return referral
