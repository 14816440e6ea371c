"""Swagger UI and ReDoc, with every script, style and picture from this service itself."""

from typing import Any

import msgspec
from litestar import Controller, MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from referral.packages import folder_of

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
"""What the two bundles need and no more; ReDoc's logo, which is on a CDN, stays away."""

START = """\
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  persistAuthorization: true,
  oauth2RedirectUrl: undefined,
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
        body = msgspec.json.encode(request.app.openapi_schema.to_schema())
        return Response(body, media_type=MediaType.JSON)

    @get("/docs/files/{name:str}")
    async def file(self, name: FromPath[str]) -> Response[bytes]:
        """Serve one of the files that the pages load."""
        headers = {"Cache-Control": "public, max-age=86400"}
        if name == "start.js":
            return Response(START.encode(), media_type="text/javascript", headers=headers)
        if name not in FILES:
            raise NotFoundException
        path, kind = FILES[name]
        return Response(path.read_bytes(), media_type=kind, headers=headers)


def _page(html: str) -> Response[str]:
    headers = {"Content-Security-Policy": POLICY}
    return Response(html, media_type=MediaType.HTML, headers=headers)
