"""The cookie of a login session on the pages."""

from typing import Any
from uuid import UUID

from litestar import Request, Response
from litestar.connection import ASGIConnection

from referral.core.entities.login_sessions import LoginSession
from referral.core.use_cases.login_sessions import FindLoginSession

LOGIN_COOKIE = "login"


def cookie_name(request: ASGIConnection[Any, Any, Any, Any], name: str) -> str:
    """Return the name of a cookie.

    Under https it has the prefix `__Host-`: browsers accept such a cookie from this host only.
    """
    return f"__Host-{name}" if _is_https(request) else name


def set_cookie(
    request: ASGIConnection[Any, Any, Any, Any], response: Response[Any], name: str, value: str
) -> None:
    """Set a cookie that scripts cannot read, until the browser is closed.

    The value must be one of `token_urlsafe`. Litestar's `set_cookie` takes as long as the template.
    """
    response.headers["Set-Cookie"] = _set_cookie_header(request, name, value)


def delete_login_cookie(
    request: ASGIConnection[Any, Any, Any, Any], response: Response[Any]
) -> None:
    """Make the browser forget the cookie of the login session."""
    header = _set_cookie_header(request, LOGIN_COOKIE, "")
    response.headers["Set-Cookie"] = f"{header}; Max-Age=0"


def login_token(request: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Return the token of the cookie, valid or not."""
    return request.cookies.get(cookie_name(request, LOGIN_COOKIE)) or None


async def find_login_session(request: Request[Any, Any, Any]) -> LoginSession | None:
    """Return the login session of the browser, if it has one."""
    token = login_token(request)
    if token is None:
        return None
    find: FindLoginSession = await request.app.state.container.get(FindLoginSession)
    return await find(token)


async def find_user_id(request: Request[Any, Any, Any]) -> UUID | None:
    """Return the id of the user who is logged in."""
    login_session = await find_login_session(request)
    return login_session.user_id if login_session else None


def _set_cookie_header(request: ASGIConnection[Any, Any, Any, Any], name: str, value: str) -> str:
    attributes = "HttpOnly; Path=/; SameSite=lax"
    secure = "; Secure" if _is_https(request) else ""
    return f"{cookie_name(request, name)}={value}; {attributes}{secure}"


def _is_https(request: ASGIConnection[Any, Any, Any, Any]) -> bool:
    public_url: str = request.app.state.public_url
    return public_url.startswith("https://")
