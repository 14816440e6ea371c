"""The authorization endpoint (RFC 6749, section 3.1): a browser asks for a code for a client."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, get
from litestar.response import Redirect

from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.errors import TooManyRequests
from referral.core.policies.client_identification import FindClient
from referral.core.use_cases.authorization_codes import IssueAuthorizationCode
from referral.web.authorization_requests import (
    AuthorizationError,
    RedirectTarget,
    UnknownClientRedirect,
    find_redirect_target,
    read_authorization_request,
)
from referral.web.injection import inject
from referral.web.pages.login_cookie import find_login_session, login_token
from referral.web.pages.refusals import PAGE_EXCEPTION_HANDLERS
from referral.web.pages.rendering import render_notice
from referral.web.public_urls import PublicUrls
from referral.web.rate_limits import count_by_user


def show_unknown_client(request: Request[Any, Any, Any], _: UnknownClientRedirect) -> Response[str]:
    """Show that the application is unknown; nobody is redirected to an unknown address."""
    return render_notice(request, "unknown_client", status=400)


class AuthorizationController(Controller):
    """The route that clients send browsers to."""

    path = "/oauth"
    include_in_schema = False
    exception_handlers = PAGE_EXCEPTION_HANDLERS | {UnknownClientRedirect: show_unknown_client}

    @get("/authorize", status_code=302)
    @inject
    async def authorize(
        self,
        request: Request[Any, Any, Any],
        find_client: FromDishka[FindClient],
        issue_code: FromDishka[IssueAuthorizationCode],
        urls: FromDishka[PublicUrls],
    ) -> Redirect:
        """Return to the client with a code or an error, or lead to the login page."""
        target = await find_redirect_target(request, find_client)
        try:
            code = await _issue(request, target, issue_code)
        except AuthorizationError as error:
            return target.respond(
                urls.public_url, error=error.error, error_description=error.description
            )
        if code is None:
            return Redirect(f"/login?{request.scope['query_string'].decode()}", status_code=302)
        return target.respond(urls.public_url, code=code)


async def _issue(
    request: Request[Any, Any, Any], target: RedirectTarget, issue_code: IssueAuthorizationCode
) -> str | None:
    """Return a code, or None if nobody is logged in; raises `AuthorizationError`."""
    authorization = read_authorization_request(target)
    token, login_session = login_token(request), await find_login_session(request)
    if token is None or login_session is None:
        return None
    try:
        await count_by_user(request.scope, RateLimitGroup.TOKEN, login_session.user_id)
    except TooManyRequests as error:
        raise AuthorizationError("temporarily_unavailable", error.detail) from error
    return await issue_code(token, authorization)
