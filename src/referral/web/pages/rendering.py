"""HTML responses, rendered from the Jinja templates beside this module."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Response

TEMPLATES = Environment(
    loader=PackageLoader("referral", "web/pages/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


def render_page(
    template: str, content_security_policy: str, *, status: int = 200, **variables: object
) -> Response[str]:
    """Render a template; autoescaping applies to every variable."""
    html = TEMPLATES.get_template(template).render(variables)
    headers = {"Content-Security-Policy": content_security_policy}
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=headers)
