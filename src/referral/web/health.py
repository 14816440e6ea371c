"""For whoever watches over the service."""

from dishka import FromDishka
from litestar import Controller, get

from referral.core.errors import Unavailable
from referral.core.health import CheckHealth
from referral.web.problems import problems
from referral.web.wiring import inject


class Health(Controller):
    """Whether the process lives, and whether it can do its work."""

    path = "/health"
    tags = ("Operations",)

    @get("/live", summary="Alive?")
    async def live(self) -> dict[str, str]:
        """Tell that the process answers; touches nothing."""
        return {"status": "ok"}

    @get("/ready", summary="Ready?", responses=problems(Unavailable))
    @inject
    async def ready(self, use: FromDishka[CheckHealth]) -> dict[str, str]:
        """Ask the database, and name the state of the other parts."""
        return await use()
