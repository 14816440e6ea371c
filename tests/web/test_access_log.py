"""Every request is counted and logged, however it ends."""

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from referral.web.middleware.draining import Drain
from referral.web.middleware.request_context import RequestContextMiddleware

START = {"type": "http.response.start", "status": 201, "headers": []}


class FailingApp:
    """An app that may begin an answer, and then raises."""

    def __init__(self, error: BaseException, *, begins: bool) -> None:
        self.error = error
        self.begins = begins

    async def __call__(self, _: Any, __: Any, send: Any) -> None:
        if self.begins:
            await send(dict(START))
        raise self.error


@pytest.mark.parametrize(
    ("error", "begins", "status"),
    [
        (LookupError(), False, 500),
        (LookupError(), True, 201),
        (asyncio.CancelledError(), False, 0),
        (asyncio.CancelledError(), True, 201),
    ],
)
async def test_a_request_that_ends_in_an_error_is_counted_and_logged(
    error: BaseException, status: int, *, begins: bool
) -> None:
    """With the status that its client got, or none where it was given up; the error goes on."""
    counted: list[tuple[str, str, int]] = []

    def count(method: str, route: str, status: int, _: float) -> None:
        counted.append((method, route, status))

    async def send(_: object) -> None:
        return

    with capture_logs() as logs:
        app = RequestContextMiddleware(
            cast("Any", FailingApp(error, begins=begins)), count, Drain(), https=False
        )
        scope: Any = {"type": "http", "method": "GET", "headers": [], "http_version": "1.1"}
        with pytest.raises(type(error)):
            await app(scope, cast("Any", None), cast("Any", send))
    assert counted == [("GET", "unknown", status)]
    assert [line["status"] for line in logs if line["event"] == "request"] == [status]
