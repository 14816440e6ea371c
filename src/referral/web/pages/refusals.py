"""The pages for people of errors, in place of problem documents."""

from math import ceil
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from referral.core.errors import (
    AccountBlocked,
    Conflict,
    ReferralError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from referral.web.pages.forms import CrossSiteForm
from referral.web.pages.login_cookie import delete_login_cookie
from referral.web.pages.rendering import render_notice
from referral.web.problems import (
    UNAVAILABLE_RETRY_AFTER_SECONDS,
    handle_unexpected_error,
    log_unavailable,
    status_of,
)


def show_too_many_requests(
    request: Request[Any, Any, Any], error: TooManyRequests
) -> Response[str]:
    """Show that the rate limit is exceeded, and in how many seconds to retry."""
    seconds = ceil(error.retry_after.total_seconds())
    page = render_notice(request, "too_many_requests", status=429, seconds=seconds)
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


def show_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Show that the request is malformed or too large."""
    if error.status_code >= 500:  # noqa: PLR2004 - server errors
        return handle_unexpected_error(request, error)
    return render_notice(request, "bad_request", status=error.status_code)


def go_to_login(request: Request[Any, Any, Any], _: Unauthenticated) -> Redirect:
    """Lead to the login page; the login session has ended, or there was none."""
    redirect = Redirect("/login", status_code=303)
    delete_login_cookie(request, redirect)
    return redirect


PAGE_EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    AccountBlocked: show_blocked,
    Conflict: show_busy,
    CrossSiteForm: show_cross_site_form,
    HTTPException: show_http_error,
    ReferralError: show_refusal,
    TooManyRequests: show_too_many_requests,
    Unauthenticated: go_to_login,
    Unavailable: show_unavailable,
}
