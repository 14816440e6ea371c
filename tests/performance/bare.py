"""The limit of a look-up: the same bytes, by the same server, from a handler that does nothing."""

import os
import sys

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from litestar import Litestar, MediaType, get

BODY = os.environ.get("BARE_BODY", "")


@get("/api/v1/codes/lookup", media_type=MediaType.JSON)
async def look_up(email: str) -> str:  # noqa: ARG001 - read, as in the service
    """Answer what the service answered."""
    return BODY


@get("/health/ready")
async def ready() -> None:
    """Tell that the process answers."""


def make() -> Litestar:
    """Make the app: what a worker process of the server calls."""
    return Litestar([look_up, ready], openapi_config=None, logging_config=None)


def main(port: int) -> None:
    """Serve with the settings of `referral run`."""
    Granian(
        "tests.performance.bare:make",
        port=port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        factory=True,
        websockets=False,
        log_level=LogLevels.warning,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
    ).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
