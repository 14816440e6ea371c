"""HTML responses, rendered from the Jinja templates beside this module."""

from base64 import b64encode
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Request, Response

from referral.core.entities.users import Locale
from referral.web.pages.translations import TEXTS

TEMPLATES = Environment(
    loader=PackageLoader("referral", "web/pages/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
# All are compiled now: an upgrade in place replaces the files while this process serves.
for _name in TEMPLATES.list_templates():
    TEMPLATES.get_template(_name)

STYLE_HASH = b64encode(
    sha256(TEMPLATES.get_template("pages.css").render().encode()).digest()
).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""The policy of the pages for people; the only image is the icon that browsers request."""

MAX_ACCEPT_LANGUAGE_CHARACTERS = 1024
"""How much of `Accept-Language` is parsed; browsers send a few dozen characters."""


def render_page(
    template: str, content_security_policy: str, *, status: int = 200, **variables: object
) -> Response[str]:
    """Render a template; autoescaping applies to every variable."""
    html = TEMPLATES.get_template(template).render(variables)
    headers = {"Content-Security-Policy": content_security_policy}
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=headers)


def render_form(
    request: Request[Any, Any, Any],
    name: str,
    *,
    status: int = 200,
    error: str | None = None,
    **variables: object,
) -> Response[str]:
    """Render the template of this name in the client's language; `error` is the key of a text."""
    locale = _locale(request)
    texts = TEXTS[locale]
    return render_page(
        f"{name}.html",
        CONTENT_SECURITY_POLICY,
        status=status,
        locale=locale,
        title=texts[f"{name}_title"],
        texts=texts,
        error=texts[error] if error else None,
        **variables,
    )


def render_notice(
    request: Request[Any, Any, Any], name: str, *, status: int = 200, **values: object
) -> Response[str]:
    """Render a page without a form; the values replace the placeholders of its message."""
    locale = _locale(request)
    texts = TEXTS[locale]
    return render_page(
        "notice.html",
        CONTENT_SECURITY_POLICY,
        status=status,
        locale=locale,
        title=texts[f"{name}_title"],
        texts=texts,
        message=texts[f"{name}_message"].format(**values),
    )


def _locale(request: Request[Any, Any, Any]) -> Locale:
    """Return the first supported locale of `Accept-Language`, or English."""
    sent = request.headers.get("accept-language", "")[:MAX_ACCEPT_LANGUAGE_CHARACTERS]
    languages = (part.strip()[:2] for part in sent.lower().split(","))
    return next((Locale(name) for name in languages if name in set(Locale)), Locale.EN)
