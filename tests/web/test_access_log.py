"""Every request is counted and logged, however it ends."""

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from referral.web.middleware.draining import Drain
from referral.web.middleware.request_context import RequestContextMiddleware

START = {"type": "http.response.start", "status": 201, "headers": []}


class FailingApp:
    """An app that raises, before or after it starts a response."""

    def __init__(self, error: BaseException, *, starts: bool) -> None:
        self.error = error
        self.begins = starts

    async def __call__(self, _: Any, __: Any, send: Any) -> None:
        if self.begins:
            await send(dict(START))
        raise self.error


@pytest.mark.parametrize(
    ("error", "starts", "status"),
    [
        (LookupError(), False, 500),
        (LookupError(), True, 201),
        (asyncio.CancelledError(), False, 0),
        (asyncio.CancelledError(), True, 201),
    ],
)
async def test_failed_request_is_counted_and_logged(
    error: BaseException, status: int, *, starts: bool
) -> None:
    """The status is what the client got, 0 for none; the exception propagates."""
    counted: list[tuple[str, str, int]] = []

    def count(method: str, route: str, status: int, _: float) -> None:
        counted.append((method, route, status))

    async def send(_: object) -> None:
        return

    with capture_logs() as logs:
        app = RequestContextMiddleware(
            cast("Any", FailingApp(error, starts=starts)), count, Drain(), https=False
        )
        scope: Any = {"type": "http", "method": "GET", "headers": [], "http_version": "1.1"}
        with pytest.raises(type(error)):
            await app(scope, cast("Any", None), cast("Any", send))
    assert counted == [("GET", "unknown", status)]
    assert [line["status"] for line in logs if line["event"] == "request"] == [status]
