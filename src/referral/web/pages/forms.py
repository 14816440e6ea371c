"""Forms of the pages: their fields, and their protection from other sites (CSRF).

A form is accepted from this site only. Browsers tell it by `Sec-Fetch-Site`, older ones by
`Origin`. In addition, each form has a token that another site can neither read nor guess: it is
derived from a cookie, or it is the token of the mail's link.
"""

import hmac
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException

from referral.core.entities.idempotency import IdempotentRequest
from referral.core.ports.security import Fingerprinter
from referral.web.idempotency import make_stored_response
from referral.web.middleware.cors import sent_origin
from referral.web.oauth import FORM_MEDIA_TYPE, MAX_FORM_FIELDS
from referral.web.pages.login_cookie import cookie_name, login_token, set_cookie

FORM_COOKIE = "form"
FORM_TOKEN_FIELD = "form_token"  # noqa: S105 - the name of a field
FORM_ID_FIELD = "form_id"
MAX_FORM_ID_CHARACTERS = 64
COOKIE_BYTES = 32
FORM_ID_BYTES = 16

SAFE_METHODS = {"GET", "OPTIONS"}
OWN_SITE = {"same-origin", "none"}
"""The values of `Sec-Fetch-Site` of a form of this site; `none` is a reload by the user."""


class CrossSiteForm(HTTPException):
    """The form was sent from another site, or without its cookie."""

    status_code = 403


class MalformedForm(HTTPException):
    """The body is not a form."""

    status_code = 400


async def refuse_other_sites(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
    """Guard: raise `CrossSiteForm` unless the request reads only or comes from this site."""
    if connection.scope.get("method") in SAFE_METHODS:
        return
    site = connection.headers.get("sec-fetch-site")
    origin = sent_origin(connection.scope)
    if site is None and origin is not None:
        host = connection.headers.get("host", "")
        is_own = origin == connection.app.state.public_url or origin.partition("://")[2] == host
        site = "same-origin" if is_own else "cross-site"
    if site is not None and site not in OWN_SITE:
        raise CrossSiteForm


async def read_form_fields(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return the fields; the first value of a repeated one. Raises `MalformedForm`."""
    if request.content_type[0] != FORM_MEDIA_TYPE:
        raise MalformedForm
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(text, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except ValueError as error:
        raise MalformedForm from error
    return dict(reversed(pairs))


async def read_anonymous_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return the fields of a form that was shown by `set_form_cookie`; raises `CrossSiteForm`."""
    return await _read_checked(request, request.cookies.get(cookie_name(request, FORM_COOKIE)))


async def read_user_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return the fields of a form of a user who is logged in; raises `CrossSiteForm`."""
    return await _read_checked(request, login_token(request))


def new_form_cookie(request: Request[Any, Any, Any]) -> tuple[str, str]:
    """Return the value of the form cookie, the browser's or a new one, and the forms' token."""
    value = request.cookies.get(cookie_name(request, FORM_COOKIE)) or token_urlsafe(COOKIE_BYTES)
    return value, form_token(value)


def set_form_cookie(
    request: Request[Any, Any, Any], response: Response[Any], value: str
) -> Response[Any]:
    """Set the cookie that the forms of a page need, unless the browser has it."""
    if request.cookies.get(cookie_name(request, FORM_COOKIE)) != value:
        set_cookie(request, response, FORM_COOKIE, value)
    return response


def form_token(secret: str) -> str:
    """Return the token of the forms that belong to a cookie; it does not reveal the cookie."""
    return hmac.digest(secret.encode(), b"form token", sha256).hex()


def new_form_id() -> str:
    """Return the id of a form, by which a form that is sent twice is recognized."""
    return token_urlsafe(FORM_ID_BYTES)


async def idempotent_form(
    request: Request[Any, Any, Any], fields: dict[str, str], location: str
) -> IdempotentRequest[Any] | None:
    """Return what a use case needs to execute a form once; a repetition leads to `location`.

    The digest of the fields is part of the key, so a form that was corrected is another one.
    """
    form_id = fields.get(FORM_ID_FIELD, "")
    if not 0 < len(form_id) <= MAX_FORM_ID_CHARACTERS:
        return None
    content = f"{request.url.path}\n".encode() + await request.body()
    fingerprinter: Fingerprinter = await request.app.state.container.get(Fingerprinter)
    digests = fingerprinter.compute(content)
    key = sha256(b"form\n" + digests[0]).digest()
    return IdempotentRequest(
        key, digests, lambda _: make_stored_response(303, None, location=location)
    )


async def _read_checked(request: Request[Any, Any, Any], secret: str | None) -> dict[str, str]:
    fields = await read_form_fields(request)
    sent = fields.get(FORM_TOKEN_FIELD, "")
    if not secret or not hmac.compare_digest(sent.encode(), form_token(secret).encode()):
        raise CrossSiteForm
    return fields
