"""The referrers with the most confirmed referrals."""

from typing import Annotated
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, get
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.statistics import ReferrerFigures, ReferrerFilter
from referral.core.use_cases.statistics import ListReferrers
from referral.web.injection import inject
from referral.web.pagination import DEFAULT_PAGE_ITEMS, Limit, parse_limit
from referral.web.permissions import permitted
from referral.web.problem_types import READ_ERRORS, problem_responses
from referral.web.time_parameters import Since, Until, parse_time


class TopReferrerResponse(Struct):
    """The referrals of a user by their status now."""

    user_id: Annotated[UUID, Meta(description="The id of the referrer; the account may be erased.")]
    confirmed: int
    pending: int
    rejected: int

    @classmethod
    def from_figures(cls, figures: ReferrerFigures) -> "TopReferrerResponse":
        """Encode the figures of a referrer."""
        return cls(**{name: getattr(figures, name) for name in cls.__struct_fields__})


class TopReferrersResponse(Struct):
    """Referrers, the most confirmed referrals first."""

    items: list[TopReferrerResponse]


class ReferrersController(Controller):
    """The route for referrers."""

    path = "/api/v1/referrers"
    tags = ("Administration",)

    @get(
        summary="List the top referrers",
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listReferrers"),
    )
    @inject
    async def list_top(
        self,
        list_referrers: FromDishka[ListReferrers],
        since: Since = None,
        until: Until = None,
        limit: Limit = str(DEFAULT_PAGE_ITEMS),
    ) -> TopReferrersResponse:
        """List the users with the most confirmed referrals. `since` and `until` are about the time
        of joining, as in the list of referrals. All time, and a whole UTC day, month or year, are
        the fastest.
        """
        wanted = ReferrerFilter(parse_time(since, "since"), parse_time(until, "until"))
        found = await list_referrers(wanted, parse_limit(limit))
        return TopReferrersResponse([TopReferrerResponse.from_figures(each) for each in found])
