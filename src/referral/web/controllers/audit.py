"""The audit log."""

from typing import Annotated
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.audit import AuditAction, AuditFilter, AuditRecord
from referral.core.use_cases.audit import ListAuditRecords
from referral.web.field_types import Timestamp
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import READ_ERRORS, problem_responses
from referral.web.time_parameters import Since, Until, parse_time

VISIBLE = {"pattern": "^[!-~]*$", "max_length": 100}
ActorFilter = Annotated[
    str | None,
    QueryParameter(description="The id of a user or a client, or `operator`.", **VISIBLE),
]
SubjectFilter = Annotated[
    str | None,
    QueryParameter(description="The id of what was changed.", **VISIBLE),
]
ActionFilter = Annotated[
    AuditAction | None,
    QueryParameter(description="What was done. Later versions can add actions."),
]


class AuditRecordResponse(Struct):
    """A record of the audit log. It names users and clients by id."""

    id: UUID
    at: Timestamp
    actor: Annotated[
        str, Meta(description="The id of a user or a client, otherwise as `actor_type`.")
    ]
    actor_type: Annotated[
        str, Meta(description="`user`, `client`, `operator`, or `service` for the service itself.")
    ]
    action: str
    subject: Annotated[str, Meta(description="The id of what was changed.")]
    reason: str | None
    request_id: str | None

    @classmethod
    def from_record(cls, record: AuditRecord) -> "AuditRecordResponse":
        """Encode a record."""
        return cls(**{name: getattr(record, name) for name in cls.__struct_fields__})


class AuditPageResponse(Struct):
    """A page of the audit log, newest first."""

    items: list[AuditRecordResponse]
    next_cursor: str | None


class AuditController(Controller):
    """Routes for the audit log."""

    path = "/api/v1/audit"
    tags = ("Administration",)

    @get(
        summary="List the audit log",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listAuditRecords"),
    )
    @inject
    async def list_all(
        self,
        page: NamedDependency[PageRequest],
        list_records: FromDishka[ListAuditRecords],
        actor: ActorFilter = None,
        subject: SubjectFilter = None,
        action: ActionFilter = None,
        since: Since = None,
        until: Until = None,
    ) -> AuditPageResponse:
        """List what admins, clients and the operator changed, and what concerns security."""
        wanted = AuditFilter(
            actor, subject, action, parse_time(since, "since"), parse_time(until, "until")
        )
        list_key = ("audit", actor, subject, action, wanted.since, wanted.until)
        records = await list_records(wanted, after=page.after(*list_key), limit=page.limit)
        items = [AuditRecordResponse.from_record(record) for record in records.items]
        return AuditPageResponse(items, make_cursor(records.next_after, *list_key))
