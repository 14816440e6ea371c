"""The feed of events."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.events import Event, FeedEvent
from referral.core.use_cases.events import ListEvents
from referral.web.field_types import Timestamp
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import READ_ERRORS, problem_responses

TypeFilter = Annotated[
    list[str] | None,
    QueryParameter(
        name="type",
        description="Only events of these types: `code.created`, or `code.*` for a group.",
    ),
]

LIST_KEY = "events"
"""The cursor is a place in the feed of all events: filters may change between two pages."""


class EventResponse(Struct):
    """A change of a user, a code or a referral."""

    id: Annotated[UUID, Meta(description="The same in the feed and in every delivery.")]
    type: Annotated[
        str, Meta(description="New types may come at any time.", examples=["code.created"])
    ]
    timestamp: Timestamp
    data: Annotated[
        dict[str, Any],
        Meta(
            description="Ids, codes, states and times after the change: by type, the `data` of the "
            "webhooks in this document. New fields may come at any time.",
            # Without it openapi-typescript takes the object for an empty one.
            extra_json_schema={"additionalProperties": True},
        ),
    ]

    @classmethod
    def from_event(cls, event: Event) -> "EventResponse":
        """Encode an event."""
        return cls(event.id, event.type, event.occurred_at, dict(event.data))


class EventPageResponse(Struct):
    """A page of events, oldest first."""

    items: list[EventResponse]
    next_cursor: Annotated[
        str, Meta(description="Where to go on, now or later; present on the last page too.")
    ]


class EventsController(Controller):
    """The route of the feed."""

    path = "/api/v1/events"
    tags = ("Events",)

    @get(
        summary="List events",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listEvents"),
    )
    @inject
    async def list_all(
        self,
        page: NamedDependency[PageRequest],
        list_events: FromDishka[ListEvents],
        event_types: TypeFilter = None,
    ) -> EventPageResponse:
        """List the events of the last 30 days, oldest first. To poll, store `next_cursor` and send
        it as `cursor` of the next request: no event is skipped, and none is listed twice.
        """
        after = page.after_position(LIST_KEY)
        events = await list_events(event_types, after=after, limit=page.limit)
        items = [EventResponse.from_event(each.event) for each in events]
        return EventPageResponse(items, _next_cursor(events, after))


def _next_cursor(events: list[FeedEvent], after: int) -> str:
    """Return the cursor after the last event, or after the previous page if there are none."""
    position = events[-1].position if events else after
    return make_cursor(UUID(int=position), LIST_KEY)
