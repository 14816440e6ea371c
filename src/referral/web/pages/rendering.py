"""HTML responses, rendered from the Jinja templates beside this module."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Request, Response

from referral.core.entities.users import Locale
from referral.web.pages.translations import LANGUAGE_NAMES, TEXTS, format_date, format_time
from referral.web.public_urls import ACCOUNT_PATH, LOGIN_PATH

TEMPLATES = Environment(
    loader=PackageLoader("referral", "web/pages/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
TEMPLATES.globals |= {
    "languages": LANGUAGE_NAMES,
    "add_days": lambda time, days: time + timedelta(days=days),
}
# All are compiled now: an upgrade in place replaces the files while this process serves.
for _name in TEMPLATES.list_templates():
    TEMPLATES.get_template(_name)


def _hash_source(template: str) -> str:
    """Return the source expression of an embedded style or script (CSP 3, section 2.3.1)."""
    content = TEMPLATES.get_template(template).render().encode()
    return f"'sha256-{b64encode(sha256(content).digest()).decode()}'"


STYLE_SOURCE = _hash_source("pages.css")
SCRIPT_SOURCE = _hash_source("copy.js")

HOME_LINK = ("/", "home_link")
ACCOUNT_LINK = (ACCOUNT_PATH, "account_link")
FORGOT_LINK = ("/forgot", "forgot_link")
LOGIN_LINK = (LOGIN_PATH, "login_link")
"""Where a notice can lead to: a path, and the key of the link's text."""

OWN_SITE_SOURCE = "'self'"

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
    errors: Mapping[str, str] | None = None,
    locale: Locale | None = None,
    form_action: str = OWN_SITE_SOURCE,
    **variables: object,
) -> Response[str]:
    """Render the template of this name in a locale, by default the client's.

    `errors` has the key of a text for each invalid field. `form_action` is where forms may lead,
    also by redirects.
    """
    locale = locale or client_locale(request)
    texts = TEXTS[locale]
    title = texts[f"{name}_title"]
    messages = {field: texts[key] for field, key in (errors or {}).items()}
    page = render_page(
        f"{name}.html",
        content_security_policy(form_action),
        status=status,
        locale=locale,
        title=title,
        page_title=texts["error_prefix"].format(title=title) if errors else title,
        texts=texts,
        errors=messages,
        format_date=lambda time: format_date(time, locale),
        format_time=lambda time: format_time(time, locale),
        **variables,
    )
    return with_own_referrer(page)


def render_notice(
    request: Request[Any, Any, Any],
    name: str,
    *,
    status: int = 200,
    link: tuple[str, str] = HOME_LINK,
    locale: Locale | None = None,
    **values: object,
) -> Response[str]:
    """Render a page without a form; the values replace the placeholders of its message.

    `link` is where it leads to.
    """
    locale = locale or client_locale(request)
    texts = TEXTS[locale]
    href, link_text = link
    page = render_page(
        "notice.html",
        content_security_policy(),
        status=status,
        locale=locale,
        title=texts[f"{name}_title"],
        page_title=texts[f"{name}_title"],
        texts=texts,
        message=texts[f"{name}_message"].format(**values),
        href=href,
        link_text=texts[link_text],
    )
    return with_own_referrer(page)


def content_security_policy(form_action: str = OWN_SITE_SOURCE) -> str:
    """Return the policy of the pages for people; their images are QR codes and the icon."""
    return (
        f"default-src 'none'; style-src {STYLE_SOURCE}; script-src {SCRIPT_SOURCE}; "
        f"img-src 'self'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    )


def with_own_referrer(page: Response[str]) -> Response[str]:
    """Let the browser name this site to itself: under `no-referrer` it hides a form's origin."""
    page.headers["Referrer-Policy"] = "same-origin"
    return page


def client_locale(request: Request[Any, Any, Any]) -> Locale:
    """Return the supported locale that `Accept-Language` prefers, or English."""
    sent = request.headers.get("accept-language", "")[:MAX_ACCEPT_LANGUAGE_CHARACTERS]
    ranked = [
        (_quality(parameters), part.strip()[:2])
        for part, _, parameters in (item.partition(";") for item in sent.lower().split(","))
    ]
    known = set(Locale)
    preferred = sorted(ranked, key=lambda entry: -entry[0])
    return next(
        (Locale(name) for quality, name in preferred if quality > 0 and name in known), Locale.EN
    )


def _quality(parameters: str) -> float:
    """Return the value of `q=`, by default 1 (RFC 9110, section 12.4.2)."""
    name, _, value = parameters.strip().partition("=")
    if name != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
