"""The page that `List-Unsubscribe` links open (RFC 8058)."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, get, post
from litestar.params import FromPath

from referral.core.use_cases.accounts import Unsubscribe
from referral.web.injection import inject
from referral.web.pages.rendering import render_page

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
)


class UnsubscribeController(Controller):
    """Routes for unsubscribing from notifications."""

    path = "/unsubscribe"
    include_in_schema = False

    @get("/{token:str}", media_type=MediaType.HTML)
    async def ask(self, token: FromPath[str]) -> Response[str]:  # noqa: ARG002 - the form posts here
        """Ask for confirmation: a program that opens every link of a mail must not unsubscribe."""
        return _page(unsubscribed=False)

    @post("/{token:str}", media_type=MediaType.HTML, status_code=200)
    @inject
    async def unsubscribe(
        self,
        request: Request[Any, Any, Any],
        token: FromPath[str],
        unsubscribe: FromDishka[Unsubscribe],
    ) -> Response[str]:
        """Unsubscribe, by the form or by a mail client's one-click request."""
        await request.body()
        await unsubscribe(token)
        return _page(unsubscribed=True)


def _page(*, unsubscribed: bool) -> Response[str]:
    return render_page("unsubscribe.html", CONTENT_SECURITY_POLICY, unsubscribed=unsubscribed)
