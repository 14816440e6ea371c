"""Swagger UI and ReDoc, with every script, style and picture from this service itself."""

from functools import cache
from typing import Any

import msgspec
from litestar import Controller, MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from referral.package_files import folder_of
from referral.web.openapi import complete

BUNDLES = folder_of("drf_spectacular_sidecar") / "static/drf_spectacular_sidecar"

FILES = {
    "swagger-ui.css": (BUNDLES / "swagger-ui-dist/swagger-ui.css", "text/css"),
    "swagger-ui.js": (BUNDLES / "swagger-ui-dist/swagger-ui-bundle.js", "text/javascript"),
    "redoc.js": (BUNDLES / "redoc/bundles/redoc.standalone.js", "text/javascript"),
    "favicon.png": (BUNDLES / "swagger-ui-dist/favicon-32x32.png", "image/png"),
}

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
)
"""What the two bundles need and no more."""

LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
NO_LOGO = b"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"
"""ReDoc has no option for the small picture in its footer, which it asks a CDN for."""

START = """\
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
});
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Referral API</title>
<link rel="icon" type="image/png" href="/docs/files/favicon.png">
{head}
</head>
<body style="margin:0">
{body}
</body>
</html>
"""

SWAGGER = PAGE.format(
    head='<link rel="stylesheet" href="/docs/files/swagger-ui.css">',
    body='<div id="page"></div>\n<script src="/docs/files/swagger-ui.js"></script>\n'
    '<script src="/docs/files/start.js"></script>',
)
REDOC = PAGE.format(
    head="",
    body='<redoc spec-url="/openapi.json"></redoc>\n<script src="/docs/files/redoc.js"></script>',
)


class Docs(Controller):
    """The pages on which one reads and tries the API."""

    include_in_schema = False

    @get("/docs")
    async def swagger(self) -> Response[str]:
        """Show Swagger UI."""
        return _page(SWAGGER)

    @get("/redoc")
    async def redoc(self) -> Response[str]:
        """Show ReDoc."""
        return _page(REDOC)

    @get("/openapi.json")
    async def document(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """Show the OpenAPI 3.1 document."""
        state = request.app.state
        if "document" not in state:
            document = complete(request.app.openapi_schema.to_schema())
            state["document"] = msgspec.json.encode(document)
        return Response(state["document"], media_type=MediaType.JSON)

    @get("/docs/files/{name:str}")
    async def file(self, name: FromPath[str]) -> Response[bytes]:
        """Serve one of the files that the pages load."""
        headers = {"Cache-Control": "public, max-age=86400"}
        if name == "start.js":
            return Response(START.encode(), media_type="text/javascript", headers=headers)
        if name not in FILES:
            raise NotFoundException
        return Response(_read(name), media_type=FILES[name][1], headers=headers)


@cache
def _read(name: str) -> bytes:
    return FILES[name][0].read_bytes().replace(LOGO, NO_LOGO)


def _page(html: str) -> Response[str]:
    headers = {"Content-Security-Policy": POLICY}
    return Response(html, media_type=MediaType.HTML, headers=headers)
