"""The pages for people of errors, in place of problem documents."""

from math import ceil
from typing import Any

from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
)
from litestar.response import Redirect
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR as INTERNAL

from referral.core.errors import (
    AccountBlocked,
    Conflict,
    ReferralError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from referral.web.pages.forms import CrossSiteForm
from referral.web.pages.login_cookie import delete_login_cookie, login_token
from referral.web.pages.rendering import client_locale, render_notice
from referral.web.pages.translations import TEXTS
from referral.web.problems import (
    UNAVAILABLE_RETRY_AFTER_SECONDS,
    handle_http_exception,
    log_unavailable,
    log_unexpected,
    status_of,
)
from referral.web.public_urls import LOGIN_PATH

API_PREFIX = "/api/"

MAX_SECONDS_SHOWN = 120
"""Longer waits are shown in minutes."""

SESSION_ENDED_PATH = f"{LOGIN_PATH}?session=ended"


def show_too_many_requests(
    request: Request[Any, Any, Any], error: TooManyRequests
) -> Response[str]:
    """Show that the rate limit is exceeded, and after how long to retry."""
    seconds = ceil(error.retry_after.total_seconds())
    texts = TEXTS[client_locale(request)]
    unit = "seconds" if seconds <= MAX_SECONDS_SHOWN else "minutes"
    time = texts[unit].format(count=seconds if unit == "seconds" else ceil(seconds / 60))
    page = render_notice(request, "too_many_requests", status=429, time=time)
    page.headers["Retry-After"] = str(seconds)
    return page


def show_unavailable(request: Request[Any, Any, Any], error: Unavailable) -> Response[str]:
    """Show that a dependency is unavailable; the link stays valid."""
    log_unavailable(error)
    page = render_notice(request, "unavailable", status=503)
    page.headers["Retry-After"] = UNAVAILABLE_RETRY_AFTER_SECONDS
    return page


def show_cross_site_form(request: Request[Any, Any, Any], _: CrossSiteForm) -> Response[str]:
    """Show that the form came from another site, or without its cookie."""
    return render_notice(request, "cross_site", status=403)


def show_blocked(request: Request[Any, Any, Any], _: AccountBlocked) -> Response[str]:
    """Show that the account is blocked."""
    return render_notice(request, "blocked", status=403)


def show_busy(request: Request[Any, Any, Any], _: Conflict) -> Response[str]:
    """Show that the same form is being processed."""
    return render_notice(request, "busy", status=409)


def show_refusal(request: Request[Any, Any, Any], error: ReferralError) -> Response[str]:
    """Show that the request is refused, where its page does not say more."""
    return render_notice(request, "bad_request", status=status_of(type(error)))


def show_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[str]:
    """Show that the request is malformed or too large."""
    if error.status_code >= INTERNAL:
        return show_unexpected_error(request, error)
    return render_notice(request, "bad_request", status=error.status_code)


def show_unexpected_error(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    """Show that something failed, and log it."""
    log_unexpected(error)
    return render_notice(request, "failed", status=INTERNAL)


def show_unknown_path(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Show that there is no such page, or respond with problem details outside of a browser."""
    problem = handle_http_exception(request, error)
    is_browser = "text/html" in request.headers.get("accept", "")
    if not is_browser or request.url.path.startswith(API_PREFIX):
        return problem
    page = render_notice(request, "missing", status=problem.status_code or error.status_code)
    page.headers |= problem.headers
    return page


def go_to_login(request: Request[Any, Any, Any], _: Unauthenticated) -> Redirect:
    """Lead to the login page, which says so if a login session has ended."""
    redirect = Redirect(SESSION_ENDED_PATH if login_token(request) else LOGIN_PATH, status_code=303)
    delete_login_cookie(request, redirect)
    return redirect


PAGE_EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    AccountBlocked: show_blocked,
    Conflict: show_busy,
    CrossSiteForm: show_cross_site_form,
    Exception: show_unexpected_error,
    HTTPException: show_http_error,
    ReferralError: show_refusal,
    TooManyRequests: show_too_many_requests,
    Unauthenticated: go_to_login,
    Unavailable: show_unavailable,
}
"""The pages of errors that a page of the service raises."""

UNKNOWN_PATH_HANDLERS: dict[int | type[Exception], Any] = {
    MethodNotAllowedException: show_unknown_path,
    NotFoundException: show_unknown_path,
}
"""The pages of errors that no page raises: its path or method does not exist."""
