"""The referrals of all users."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.clients import Caller
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.risk import RiskCode, RiskLevel, RiskSignal, risk_level
from referral.core.entities.searches import ReferralFilter, ReferralRecord
from referral.core.use_cases.referral_review import DecideReferral, ListAllReferrals
from referral.web.auth import authenticate
from referral.web.controllers.all_codes import ReasonRequest
from referral.web.field_types import Timestamp
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import (
    BODY_ERRORS,
    READ_ERRORS,
    READ_ONE_ERRORS,
    problem_responses,
)
from referral.web.time_parameters import Since, Until, parse_time

ReferralId = Annotated[UUID, PathParameter(description="The `referral_id` of the referral.")]


class RiskSignalResponse(Struct):
    """A risk signal, and its reason in words."""

    code: RiskCode
    detail: str


class RiskResponse(Struct):
    """The risk that a referral was not earned. `same-mailbox` alone, or two others, are `high`."""

    level: RiskLevel
    signals: list[RiskSignalResponse]

    @classmethod
    def from_signals(cls, signals: tuple[RiskSignal, ...]) -> "RiskResponse":
        """Encode the signals of a referral."""
        items = [RiskSignalResponse(signal.code, signal.detail) for signal in signals]
        return cls(risk_level(signals), items)


class ReviewedReferralResponse(Struct):
    """A referral as admins and clients see it; `id` is the id of the referred user."""

    referral_id: UUID
    referrer_id: UUID
    id: UUID
    email: Annotated[str | None, Meta(description="Null after the account was erased.")]
    status: ReferralStatus
    code: Annotated[
        str | None, Meta(description="The code's text at that time; null without a code.")
    ]
    joined_at: Timestamp
    risk: RiskResponse
    held: Annotated[bool, Meta(description="Whether it stays pending until an admin decides.")]
    reason: Annotated[str | None, Meta(description="The reason of an admin, if one decided.")]

    @classmethod
    def from_record(cls, record: ReferralRecord) -> "ReviewedReferralResponse":
        """Encode a referral."""
        plain = {name: getattr(record, name) for name in cls.__struct_fields__ if name != "risk"}
        return cls(**plain, risk=RiskResponse.from_signals(record.risk_signals))


class ReviewedReferralPageResponse(Struct):
    """A page of referrals, newest first."""

    items: list[ReviewedReferralResponse]
    next_cursor: str | None


def provide_referral_filter(
    request: Request[Any, Any, Any],
    status: Annotated[
        ReferralStatus | None, QueryParameter(description="Only referrals of this status.")
    ] = None,
    referrer_id: Annotated[
        UUID | None, QueryParameter(description="Only the referrals of this user.")
    ] = None,
    code: Annotated[
        str | None, QueryParameter(description="Only referrals by the code with this text.")
    ] = None,
    since: Since = None,
    until: Until = None,
    held: Annotated[
        bool | None, QueryParameter(description="Only held referrals, or only others.")
    ] = None,
) -> ReferralFilter:
    """Read the filters of a list of referrals."""
    code = request.query_params.get("code", code)  # Litestar converts the text "null" to None
    times = parse_time(since, "since"), parse_time(until, "until")
    return ReferralFilter(status, referrer_id, code, *times, held)


class ReferralReviewController(Controller):
    """Routes for the referrals of all users."""

    path = "/api/v1/referrals"
    tags = ("Administration",)

    @get(
        summary="List all referrals",
        dependencies={
            "page": Provide(provide_page_request, sync_to_thread=False),
            "wanted": Provide(provide_referral_filter, sync_to_thread=False),
        },
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listReferrals"),
    )
    @inject
    async def list_all(
        self,
        page: NamedDependency[PageRequest],
        wanted: NamedDependency[ReferralFilter],
        list_referrals: FromDishka[ListAllReferrals],
    ) -> ReviewedReferralPageResponse:
        """List the referrals of all users by the time of joining, newest first. `since` and
        `until` are about that time.
        """
        list_key = ("all-referrals", wanted)
        found = await list_referrals(wanted, after=page.after(*list_key), limit=page.limit)
        items = [ReviewedReferralResponse.from_record(record) for record in found.items]
        return ReviewedReferralPageResponse(items, make_cursor(found.next_after, *list_key))

    @post(
        "/{referral_id:uuid}/confirm",
        summary="Confirm a referral",
        status_code=200,
        dependencies={"caller": Provide(authenticate)},
        responses=problem_responses(*READ_ONE_ERRORS, *BODY_ERRORS, errors.ReferralDecided),
        **permitted("confirmReferral"),
    )
    @inject
    async def confirm(
        self,
        referral_id: ReferralId,
        caller: NamedDependency[Caller],
        data: JSONBody[ReasonRequest],
        decide: FromDishka[DecideReferral],
    ) -> ReviewedReferralResponse:
        """Confirm a referral, whatever its status is. An admin decides on a referral only once."""
        status = ReferralStatus.CONFIRMED
        record = await decide(referral_id, status, caller.actor, data.reason)
        return ReviewedReferralResponse.from_record(record)

    @post(
        "/{referral_id:uuid}/reject",
        summary="Reject a referral",
        status_code=200,
        dependencies={"caller": Provide(authenticate)},
        responses=problem_responses(*READ_ONE_ERRORS, *BODY_ERRORS, errors.ReferralDecided),
        **permitted("rejectReferral"),
    )
    @inject
    async def reject(
        self,
        referral_id: ReferralId,
        caller: NamedDependency[Caller],
        data: JSONBody[ReasonRequest],
        decide: FromDishka[DecideReferral],
    ) -> ReviewedReferralResponse:
        """Reject a referral, whatever its status is; the code gets its use back. An admin decides
        on a referral only once.
        """
        status = ReferralStatus.REJECTED
        record = await decide(referral_id, status, caller.actor, data.reason)
        return ReviewedReferralResponse.from_record(record)
