"""The page that `List-Unsubscribe` links open (RFC 8058)."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, get, post
from litestar.params import FromPath

from referral.core.errors import NotFound
from referral.core.use_cases.accounts import InspectUnsubscribeToken, Unsubscribe
from referral.web.injection import inject
from referral.web.pages.refusals import PAGE_EXCEPTION_HANDLERS
from referral.web.pages.rendering import render_form, render_notice


def show_unusable_link(request: Request[Any, Any, Any], _: NotFound) -> Response[str]:
    """Show that the link is incomplete or its user does not exist."""
    return render_notice(request, "unsubscribe_unusable", status=404)


class UnsubscribeController(Controller):
    """Routes for unsubscribing from notifications."""

    path = "/unsubscribe"
    include_in_schema = False
    exception_handlers = PAGE_EXCEPTION_HANDLERS | {NotFound: show_unusable_link}

    @get("/{token:str}")
    @inject
    async def ask(
        self,
        request: Request[Any, Any, Any],
        token: FromPath[str],
        inspect_token: FromDishka[InspectUnsubscribeToken],
    ) -> Response[str]:
        """Ask for confirmation: a program that opens every link of a mail must not unsubscribe."""
        user = await inspect_token(token)
        return render_form(request, "unsubscribe", email=user.email)

    @post("/{token:str}", status_code=200)
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
        return render_notice(request, "unsubscribed")
