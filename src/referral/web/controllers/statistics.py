"""Statistics by day, week or month, as figures and as pictures."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.statistics import (
    Interval,
    Statistics,
    StatisticsRange,
    UserStatistics,
)
from referral.core.use_cases.statistics import ShowStatistics, ShowUserStatistics
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_user
from referral.web.before_request import require_user
from referral.web.field_types import Timestamp
from referral.web.injection import inject
from referral.web.line_chart import CONTENT_SECURITY_POLICY, LineChart
from referral.web.permissions import permitted
from referral.web.pictures import SVG_MEDIA_TYPE, image_response
from referral.web.problem_types import READ_ERRORS, problem_responses
from referral.web.problems import FieldError, ValidationFailed
from referral.web.time_parameters import parse_time

DATE_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DATE_DETAIL = "Send a date, such as 2026-12-31, or a time with a UTC offset."

ERRORS = problem_responses(414, *READ_ERRORS, errors.InvalidRequest)
WHOLE_DAYS = (
    "Days are those of UTC; a time within a day stands for the whole day. The first interval may "
    "begin before `from`, the last one may end after `to`: they count the days of the range only."
)

IntervalStart = Annotated[Timestamp, Meta(description="Midnight UTC; weeks begin on Monday.")]


class StatisticsItemResponse(Struct):
    """The figures of an interval. Decisions count when they were made."""

    start: IntervalStart
    registered: Annotated[int, Meta(description="New users.")]
    referred: Annotated[int, Meta(description="Users who joined by a referral.")]
    confirmed: Annotated[int, Meta(description="Referrals that were confirmed.")]
    rejected: Annotated[int, Meta(description="Referrals that were rejected.")]
    codes: Annotated[int, Meta(description="New codes.")]


class StatisticsResponse(Struct):
    """An item for each interval, the oldest first."""

    items: list[StatisticsItemResponse]


class UserStatisticsItemResponse(Struct):
    """The user's figures of an interval. Confirmations count when they were made."""

    start: IntervalStart
    joined: Annotated[int, Meta(description="Users who joined by a referral of this user.")]
    confirmed: Annotated[int, Meta(description="Referrals of this user that were confirmed.")]


class UserStatisticsResponse(Struct):
    """An item for each interval, the oldest first."""

    items: list[UserStatisticsItemResponse]


def provide_statistics_range(
    since: Annotated[
        str,
        QueryParameter(
            name="from",
            description="The first day: a date, or a time with a UTC offset.",
        ),
    ],
    until: Annotated[
        str,
        QueryParameter(
            name="to",
            description="The end, which is excluded: a date, or a time with a UTC offset.",
        ),
    ],
    interval: Annotated[Interval, QueryParameter(description="What an item is about.")],
) -> StatisticsRange:
    """Read the range of a request; raises `InvalidRequest` or `ValidationFailed`."""
    return StatisticsRange.of(_time(since, "from"), _time(until, "to"), interval)


def _time(text: str, name: str) -> datetime:
    """Return a time, which is midnight for a date."""
    try:
        if DATE_PATTERN.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        found = parse_time(text, name)
    except (ValueError, ValidationFailed):
        found = None
    if found is None:
        raise ValidationFailed(FieldError(DATE_DETAIL, parameter=name))
    return found


class StatisticsController(Controller):
    """Routes for the statistics of all users and of the authenticated user."""

    path = "/api/v1"
    dependencies = {"wanted": Provide(provide_statistics_range, sync_to_thread=False)}

    @get(
        "/statistics",
        summary="Get statistics",
        tags=("Administration",),
        responses=ERRORS,
        description=f"Count what happened in each day, week or month. {WHOLE_DAYS}",
        **permitted("getStatistics"),
    )
    @inject
    async def show_all(
        self, wanted: NamedDependency[StatisticsRange], show: FromDishka[ShowStatistics]
    ) -> StatisticsResponse:
        """Count what happened in each interval."""
        rows = await show(wanted)
        return StatisticsResponse([StatisticsItemResponse(at, **asdict(row)) for at, row in rows])

    @get(
        "/statistics.svg",
        summary="Get statistics as SVG",
        tags=("Administration",),
        media_type=SVG_MEDIA_TYPE,
        responses=ERRORS | image_response(SVG_MEDIA_TYPE),
        **permitted("getStatisticsSvg"),
    )
    @inject
    async def draw_all(
        self, wanted: NamedDependency[StatisticsRange], show: FromDishka[ShowStatistics]
    ) -> Response[str]:
        """Draw the statistics as lines, in light or dark as the reader prefers."""
        title = f"Referral programme by {wanted.interval}"
        return _picture(title, "Number of users, referrals and codes", wanted, await show(wanted))

    @get(
        "/me/statistics",
        operation_id="getMyStatistics",
        summary="Get my statistics",
        tags=("Referrals",),
        security=SECURITY_REQUIREMENTS,
        before_request=require_user,
        dependencies={"user_id": Provide(authenticate_user)},
        responses=ERRORS,
        description=f"Count my referrals in each day, week or month. {WHOLE_DAYS}",
    )
    @inject
    async def show_mine(
        self,
        user_id: NamedDependency[UUID],
        wanted: NamedDependency[StatisticsRange],
        show: FromDishka[ShowUserStatistics],
    ) -> UserStatisticsResponse:
        """Count the user's referrals in each interval."""
        rows = await show(user_id, wanted)
        return UserStatisticsResponse(
            [UserStatisticsItemResponse(at, **asdict(row)) for at, row in rows]
        )

    @get(
        "/me/statistics.svg",
        operation_id="getMyStatisticsSvg",
        summary="Get my statistics as SVG",
        tags=("Referrals",),
        security=SECURITY_REQUIREMENTS,
        before_request=require_user,
        dependencies={"user_id": Provide(authenticate_user)},
        media_type=SVG_MEDIA_TYPE,
        responses=ERRORS | image_response(SVG_MEDIA_TYPE),
    )
    @inject
    async def draw_mine(
        self,
        user_id: NamedDependency[UUID],
        wanted: NamedDependency[StatisticsRange],
        show: FromDishka[ShowUserStatistics],
    ) -> Response[str]:
        """Draw my statistics as lines, in light or dark as the reader prefers."""
        rows = await show(user_id, wanted)
        return _picture(f"My referrals by {wanted.interval}", "Number of referrals", wanted, rows)


def _picture(
    title: str,
    unit: str,
    wanted: StatisticsRange,
    rows: Sequence[tuple[datetime, Statistics | UserStatistics]],
) -> Response[str]:
    figures = [asdict(row) for _, row in rows]
    chart = LineChart(
        title=title,
        unit=f"{unit} per {wanted.interval}",
        time_unit=f"Start of the {wanted.interval} (UTC)",
        starts=[start for start, _ in rows],
        series={name: [row[name] for row in figures] for name in figures[0]},
    )
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(chart.render(), media_type=SVG_MEDIA_TYPE, headers=headers)
