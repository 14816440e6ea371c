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
from referral.web.auth import SECURITY, identify
from referral.web.controllers.codes import Time
from referral.web.injection import inject
from referral.web.parsing import PageRequest, make_cursor, provide_page
from referral.web.problems import problems

UserId = Annotated[UUID, PathParameter(description="The id of the user who passed codes on.")]
Status = Annotated[
    ReferralStatus | None, QueryParameter(description="Only referrals of this status.")
]


class Referral(Struct):
    """Someone who joined; `email` and `code` are there for those who may see them."""

    id: UUID
    status: ReferralStatus
    joined_at: Time
    email: str | UnsetType | None = UNSET
    code: str | UnsetType = UNSET


class ReferralPage(Struct):
    """A page of referrals, newest first."""

    items: list[Referral]
    next_cursor: str | None


COMMON_ERRORS = (
    errors.Unauthenticated,
    errors.InsufficientScope,
    errors.InvalidRequest,
    errors.Unavailable,
)


class Referrals(Controller):
    """The referrals of a user."""

    path = "/api/v1"
    tags = ("Referrals",)
    security = SECURITY
    dependencies = {
        "caller": Provide(identify),
        "page": Provide(provide_page, sync_to_thread=False),
    }

    @get(
        "/users/{user_id:uuid}/referrals",
        summary="List a user's referrals",
        responses=problems(*COMMON_ERRORS, errors.NotFound),
    )
    @inject
    async def list_of(
        self,
        user_id: UserId,
        caller: NamedDependency[Caller],
        page: NamedDependency[PageRequest],
        use: FromDishka[ListReferrals],
        status: Status = None,
    ) -> ReferralPage:
        """List those who joined with a user's codes. Strangers see no addresses."""
        return await _page(use, caller, user_id, page, status)

    @get("/me/referrals", summary="List my referrals", responses=problems(*COMMON_ERRORS))
    @inject
    async def list_mine(
        self,
        caller: NamedDependency[Caller],
        page: NamedDependency[PageRequest],
        use: FromDishka[ListReferrals],
        status: Status = None,
    ) -> ReferralPage:
        """List those who joined with one's own codes."""
        if caller.user_id is None:
            raise errors.InsufficientScope
        return await _page(use, caller, caller.user_id, page, status)


async def _page(
    use: ListReferrals,
    caller: Caller,
    user_id: UUID,
    page: PageRequest,
    status: ReferralStatus | None,
) -> ReferralPage:
    this = ("referrals", user_id, status)
    found, in_full = await use(
        caller, user_id, status=status, after=page.after(*this), limit=page.limit
    )
    items = [_referral(joined, in_full=in_full) for joined in found.items]
    return ReferralPage(items, make_cursor(found.after, *this))


def _referral(joined: ReferralListItem, *, in_full: bool) -> Referral:
    shown = Referral(joined.id, joined.status, joined.joined_at)
    if in_full:
        shown.email, shown.code = joined.email, joined.code
    return shown
