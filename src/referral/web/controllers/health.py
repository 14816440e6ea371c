"""For whoever watches over the service."""

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
from referral.web.problems import problem_responses


class LivenessResponse(Struct):
    """That the process answers."""

    status: Literal["ok"] = "ok"


READINESS_SPEC = ResponseSpec(
    dict[str, str],
    generate_examples=False,
    description="The state of each part.",
    examples=[Example(id="healthy", summary="All is well", value={"database": "ok"})],
)


class HealthController(Controller):
    """Whether the process lives, and whether it can do its work."""

    path = "/health"
    tags = ("Operations",)

    @get("/live", summary="Alive?")
    async def live(self) -> LivenessResponse:
        """Tell that the process answers; touches nothing."""
        return LivenessResponse()

    @get(
        "/ready",
        summary="Ready?",
        responses={200: READINESS_SPEC, **problem_responses(Unavailable)},
    )
    @inject
    async def ready(self, state: State, check_health: FromDishka[CheckHealth]) -> dict[str, str]:
        """Ask the database, and name the state of the other parts; 503 also when about to end."""
        if state.drain.has_begun:
            raise Unavailable("The service is about to end; ask another one.")
        return await check_health()
