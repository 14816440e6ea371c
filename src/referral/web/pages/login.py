"""The pages to log in and out, and for a forgotten password."""

from typing import Any
from urllib.parse import urlsplit

from dishka import FromDishka
from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect

from referral.core.errors import InvalidGrant, InvalidRequest
from referral.core.policies.client_identification import FindClient
from referral.core.use_cases.email_links import RequestPasswordReset
from referral.core.use_cases.login_sessions import BeginLoginSession, EndLoginSession
from referral.web.authorization_requests import (
    TARGET_PARAMETERS,
    RedirectTarget,
    UnknownClientRedirect,
    find_redirect_target,
)
from referral.web.injection import inject
from referral.web.pages.authorize import show_unknown_client
from referral.web.pages.forms import (
    form_token,
    idempotent_form,
    new_form_cookie,
    new_form_id,
    read_anonymous_form,
    read_user_form,
    refuse_other_sites,
    set_form_cookie,
)
from referral.web.pages.login_cookie import (
    LOGIN_COOKIE,
    delete_login_cookie,
    find_login_session,
    login_token,
    set_cookie,
)
from referral.web.pages.refusals import PAGE_EXCEPTION_HANDLERS
from referral.web.pages.rendering import (
    LOGIN_LINK,
    OWN_SITE_SOURCE,
    render_form,
    render_notice,
)
from referral.web.public_urls import ACCOUNT_PATH, LOGIN_PATH
from referral.web.rate_limits import TOKEN_LIMITS, client_ip_of


class LoginController(Controller):
    """The pages of people who are not logged in yet, or want to log out.

    An authorization request is carried on in the query of `/login`. No parameter names a page to
    return to, so there is nothing that could lead to another site.
    """

    path = "/"
    include_in_schema = False
    guards = [refuse_other_sites]
    exception_handlers = PAGE_EXCEPTION_HANDLERS | {UnknownClientRedirect: show_unknown_client}

    @get("/login")
    @inject
    async def show_login(
        self, request: Request[Any, Any, Any], find_client: FromDishka[FindClient]
    ) -> Response[Any]:
        """Show the form, or go on if the browser is logged in already."""
        if await find_login_session(request) is not None:
            return Redirect(_next_path(request), status_code=303)
        return _login_form(request, await _find_target(request, find_client))

    @post("/login", status_code=303, guards=TOKEN_LIMITS)
    @inject
    async def log_in(
        self,
        request: Request[Any, Any, Any],
        find_client: FromDishka[FindClient],
        begin_login_session: FromDishka[BeginLoginSession],
    ) -> Response[Any]:
        """Log in, and go on to the account or to the client that asked for it."""
        fields = await read_anonymous_form(request)
        target = await _find_target(request, find_client)
        email, password = fields.get("email", ""), fields.get("password", "")
        client_ip, old_token = client_ip_of(request.scope), login_token(request)
        try:
            token = await begin_login_session(email, password, client_ip, old_token)
        except InvalidGrant:
            return _login_form(request, target, email=email, has_failed=True)
        redirect = Redirect(_next_path(request), status_code=303)
        set_cookie(request, redirect, LOGIN_COOKIE, token)
        return redirect

    @get("/logout")
    async def show_logout(self, request: Request[Any, Any, Any]) -> Response[Any]:
        """Ask: a link must not log anybody out."""
        token = login_token(request)
        if token is None:
            return render_notice(request, "logged_out", link=LOGIN_LINK)
        return render_form(request, "logout", form_token=form_token(token))

    @post("/logout", status_code=200)
    @inject
    async def log_out(
        self, request: Request[Any, Any, Any], end_login_session: FromDishka[EndLoginSession]
    ) -> Response[Any]:
        """End the login session."""
        token = login_token(request)
        if token is not None:
            await read_user_form(request)
            await end_login_session(token)
        page = render_notice(request, "logged_out", link=LOGIN_LINK)
        delete_login_cookie(request, page)
        return page

    @get("/forgot")
    async def show_forgot(self, request: Request[Any, Any, Any]) -> Response[str]:
        """Show the form that asks for a mail."""
        return _forgot_form(request)

    @post("/forgot", status_code=303, guards=TOKEN_LIMITS)
    @inject
    async def forgot(
        self,
        request: Request[Any, Any, Any],
        request_password_reset: FromDishka[RequestPasswordReset],
    ) -> Response[Any]:
        """Send the mail; the response is the same if the address has no account."""
        fields = await read_anonymous_form(request)
        email, sent_path = fields.get("email", ""), "/forgot/sent"
        try:
            idempotent = await idempotent_form(request, fields, sent_path)
            await request_password_reset(email, idempotent)
        except InvalidRequest:
            return _forgot_form(request, email=email, is_invalid=True)
        return Redirect(sent_path, status_code=303)

    @get("/forgot/sent")
    async def show_forgot_sent(self, request: Request[Any, Any, Any]) -> Response[str]:
        """Tell people to look into their mailbox."""
        return render_notice(request, "forgot_sent", link=LOGIN_LINK)


async def _find_target(
    request: Request[Any, Any, Any], find_client: FindClient
) -> RedirectTarget | None:
    """Return the client that asked for the login, if one did; raises `UnknownClientRedirect`."""
    if not _authorization_query(request):
        return None
    return await find_redirect_target(request, find_client)


def _authorization_query(request: Request[Any, Any, Any]) -> str:
    """Return the query if it is an authorization request; any other, as of a mailing, is not."""
    if request.query_params.keys().isdisjoint(TARGET_PARAMETERS):
        return ""
    return request.scope["query_string"].decode("ascii", "ignore")


def _next_path(request: Request[Any, Any, Any]) -> str:
    query = _authorization_query(request)
    return f"/oauth/authorize?{query}" if query else ACCOUNT_PATH


def _login_form(
    request: Request[Any, Any, Any],
    target: RedirectTarget | None,
    *,
    email: str = "",
    has_failed: bool = False,
) -> Response[Any]:
    cookie, token = new_form_cookie(request)
    query = _authorization_query(request)
    page = render_form(
        request,
        "login",
        status=422 if has_failed else 200,
        errors={"password": "login_failed"} if has_failed else None,
        form_action=_form_action(target),
        action=f"{LOGIN_PATH}?{query}" if query else LOGIN_PATH,
        has_ended=not has_failed and request.query_params.get("session") == "ended",
        client_name=target.client.name if target else None,
        email=email,
        form_token=token,
    )
    return set_form_cookie(request, page, cookie)


def _form_action(target: RedirectTarget | None) -> str:
    """Return where the form may lead to.

    After the login the browser goes on to the client, and browsers apply `form-action` to all
    redirects on the way: the host of the redirect URI may redirect to another one.
    """
    scheme = urlsplit(target.redirect_uri).scheme if target else None
    return f"{OWN_SITE_SOURCE} {scheme}:" if scheme else OWN_SITE_SOURCE


def _forgot_form(
    request: Request[Any, Any, Any], *, email: str = "", is_invalid: bool = False
) -> Response[Any]:
    cookie, token = new_form_cookie(request)
    page = render_form(
        request,
        "forgot",
        status=422 if is_invalid else 200,
        errors={"email": "invalid_email"} if is_invalid else None,
        email=email,
        form_token=token,
        form_id=new_form_id(),
    )
    return set_form_cookie(request, page, cookie)
