"""Health checks for load balancers and monitoring."""

from typing import Literal

from dishka import FromDishka
from litestar import Controller, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import Struct

from referral.core.errors import Unavailable
from referral.core.use_cases.health import CheckHealth
from referral.web.injection import inject
from referral.web.problem_types import problem_responses


class LivenessResponse(Struct):
    """The process is running."""

    status: Literal["ok"]


READINESS_SPEC = ResponseSpec(
    dict[str, str],
    generate_examples=False,
    description="The status of each component.",
    examples=[
        Example(id="healthy", summary="All components are available", value={"database": "ok"})
    ],
)


class HealthController(Controller):
    """Routes for liveness and readiness."""

    path = "/health"
    tags = ("Operations",)

    @get(
        "/live",
        operation_id="getLiveness",
        summary="Check liveness",
        responses=problem_responses(414),
    )
    async def live(self) -> LivenessResponse:
        """Respond without a check of any component."""
        return LivenessResponse("ok")

    @get(
        "/ready",
        operation_id="getReadiness",
        summary="Check readiness",
        responses={200: READINESS_SPEC, **problem_responses(414, Unavailable)},
    )
    @inject
    async def ready(self, state: State, check_health: FromDishka[CheckHealth]) -> dict[str, str]:
        """Check the database, and return the status of each component. The response is 503 if the
        database is unavailable or the service is shutting down.
        """
        if state.drain.has_begun:
            raise Unavailable("The service is shutting down. Send requests to another instance.")
        return await check_health()
