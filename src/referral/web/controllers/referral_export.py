"""The export of all referrals as CSV."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.response.base import ASGIResponse

from referral.core import errors
from referral.core.entities.clients import Caller
from referral.core.entities.risk import risk_level
from referral.core.entities.searches import ReferralFilter, ReferralRecord
from referral.core.use_cases.referral_review import ExportReferrals
from referral.web.auth import authenticate
from referral.web.controllers.referral_review import provide_referral_filter
from referral.web.csv_rows import CSV_MEDIA_TYPE, as_text, encode_rows
from referral.web.injection import inject
from referral.web.pagination import reject_null_filters
from referral.web.permissions import REQUIRED_SCOPES, permitted
from referral.web.problem_types import READ_ERRORS, problem_responses
from referral.web.streaming import StreamedResponse, StreamLimits

COLUMNS = (
    *("referral_id", "referrer_id", "id", "email", "status"),
    *("code", "joined_at", "risk", "risk_signals", "held", "reason"),
)
SCOPE = REQUIRED_SCOPES["exportReferrals"]
HEADERS = {"Content-Disposition": 'attachment; filename="referrals.csv"'}

EXAMPLE = ResponseSpec(
    str,
    description="The columns are the fields of the JSON list, of `risk` the level and the codes.",
    media_type=CSV_MEDIA_TYPE,
    generate_examples=False,
    examples=[Example(summary="A header alone", value=encode_rows([COLUMNS]).decode())],
)


class ReferralExportController(Controller):
    """The route of the export."""

    path = "/api/v1/referrals.csv"
    tags = ("Administration",)

    @get(
        summary="Export all referrals as CSV",
        media_type=CSV_MEDIA_TYPE,
        dependencies={
            "caller": Provide(authenticate),
            "wanted": Provide(provide_referral_filter, sync_to_thread=False),
        },
        responses=problem_responses(
            414, 426, *READ_ERRORS, errors.InvalidRequest, errors.TooManyRequests
        )
        | {200: EXAMPLE},
        **permitted("exportReferrals"),
    )
    @inject
    async def export(
        self,
        request: Request[Any, Any, Any],
        caller: NamedDependency[Caller],
        wanted: NamedDependency[ReferralFilter],
        export_referrals: FromDishka[ExportReferrals],
    ) -> ASGIResponse:
        """Export the referrals of the list with these filters, all of them and newest first. What
        changes meanwhile may or may not be in the file. An apostrophe precedes texts that a
        spreadsheet would run as a formula. If the connection breaks, the file is incomplete.
        """
        reject_null_filters(request)
        limits: StreamLimits = request.app.state.stream_limits
        chunks = _chunks(export_referrals, wanted, caller, limits)
        return StreamedResponse(chunks, media_type=CSV_MEDIA_TYPE, headers=HEADERS)


async def _chunks(
    export_referrals: ExportReferrals, wanted: ReferralFilter, caller: Caller, limits: StreamLimits
) -> AsyncGenerator[bytes, None]:
    with limits.stream(str(caller.user_id or caller.client_id)):
        header = [COLUMNS]
        async with aclosing(export_referrals(wanted, caller, SCOPE)) as batches:
            while True:
                async with limits.reading:
                    records = await anext(batches, None)
                if records is None:
                    return
                yield encode_rows([*header, *map(_row, records)])
                header = []


def _row(record: ReferralRecord) -> tuple[str, ...]:
    return (
        str(record.referral_id),
        str(record.referrer_id),
        str(record.id),
        as_text(record.email),
        record.status,
        as_text(record.code),
        record.joined_at.isoformat().replace("+00:00", "Z"),
        risk_level(record.risk_signals),
        " ".join(signal.code for signal in record.risk_signals),
        "true" if record.held else "false",
        as_text(record.reason),
    )
