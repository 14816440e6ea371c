"""API documentation: Swagger UI, ReDoc, the OpenAPI document and problem types.

All scripts, styles and images come from this service, none from a CDN.
"""

from functools import cache
from typing import Any

import msgspec
from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect

from referral.core.entities.clients import Scope
from referral.core.policies.client_identification import DOCS_CLIENT_ID
from referral.package_files import package_folder
from referral.web.injection import inject
from referral.web.openapi import complete_document
from referral.web.openapi_security import replace_password_scheme
from referral.web.pages.login_cookie import login_token
from referral.web.pages.rendering import render_page
from referral.web.problem_types import EXAMPLE_PUBLIC_URL, all_problem_types
from referral.web.public_urls import ACCOUNT_PATH, JOIN_PATH, PublicUrls

ASSETS_FOLDER = package_folder("drf_spectacular_sidecar") / "static/drf_spectacular_sidecar"

ASSETS = {
    "swagger-ui.css": (ASSETS_FOLDER / "swagger-ui-dist/swagger-ui.css", "text/css"),
    "swagger-ui.js": (ASSETS_FOLDER / "swagger-ui-dist/swagger-ui-bundle.js", "text/javascript"),
    "oauth2-redirect.js": (
        ASSETS_FOLDER / "swagger-ui-dist/oauth2-redirect.js",
        "text/javascript",
    ),
    "redoc.js": (ASSETS_FOLDER / "redoc/bundles/redoc.standalone.js", "text/javascript"),
    "favicon.ico": (package_folder("referral") / "web/favicon.ico", "image/vnd.microsoft.icon"),
    "favicon.png": (ASSETS_FOLDER / "swagger-ui-dist/favicon-32x32.png", "image/png"),
}

ASSET_HEADERS = {"Cache-Control": "public, max-age=86400"}

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
)
"""The minimum that Swagger UI and ReDoc need."""

REDOC_LOGO_URL = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
BLANK_LOGO_URL = b"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"
"""ReDoc loads the logo in its footer from a CDN and has no option against it."""

SWAGGER_START_JS = """\
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const applyScheme = () =>
  document.documentElement.classList.toggle("dark-mode", darkScheme.matches);
darkScheme.addEventListener("change", applyScheme);
applyScheme();
// In the forms of OAuth flows, Swagger UI ignores the Enter key.
document.addEventListener("keydown", ({key, target}) => {
  if (key === "Enter" && target.matches(".auth-container input") && !target.form)
    target.closest(".auth-container").querySelector("button.authorize").click();
});
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  requestInterceptor(request) {
    // The page may have been opened by another name of the host than the public URL.
    const url = new URL(request.url, location.href);
    request.url = location.origin + url.pathname + url.search;
    return request;
  },
  oauth2RedirectUrl: location.origin + "/docs/oauth2-redirect",
});
"""

SWAGGER_OAUTH_JS = f"""\
window.ui.initOAuth({{
  clientId: "{DOCS_CLIENT_ID}",
  scopes: "{Scope.ACCOUNT}",
  usePkceWithAuthorizationCodeGrant: true,
}});
"""
"""Only without the password grant: Swagger UI would send the client's id with that as well."""

SCRIPTS = {"start.js": SWAGGER_START_JS, "oauth.js": SWAGGER_OAUTH_JS}


class DocsController(Controller):
    """Routes for the API documentation."""

    include_in_schema = False

    @get("/", status_code=302)
    @inject
    async def root(self, request: Request[Any, Any, Any], urls: FromDishka[PublicUrls]) -> Redirect:
        """Redirect to the landing page; people who are logged in have `/account` for `/join`."""
        home = urls.home()
        is_logged_in = login_token(request) is not None
        return Redirect(
            ACCOUNT_PATH if is_logged_in and home == JOIN_PATH else home, status_code=302
        )

    @get("/favicon.ico")
    async def favicon(self) -> Response[bytes]:
        """Return the icon that browsers request of every site."""
        return _asset_response("favicon.ico")

    @get("/docs")
    async def swagger(self, request: Request[Any, Any, Any]) -> Response[str]:
        """Return Swagger UI."""
        uses_code = not request.app.state.allows_password_grant
        return render_page("swagger.html", CONTENT_SECURITY_POLICY, uses_code=uses_code)

    @get("/docs/oauth2-redirect")
    async def oauth2_redirect(self) -> Response[str]:
        """Return the page that brings the code of a log-in back to Swagger UI."""
        return render_page("oauth2_redirect.html", CONTENT_SECURITY_POLICY)

    @get("/redoc")
    async def redoc(self) -> Response[str]:
        """Return ReDoc."""
        return render_page("redoc.html", CONTENT_SECURITY_POLICY)

    @get("/openapi.json")
    async def openapi(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return the OpenAPI 3.1 document."""
        state = request.app.state
        if "document" not in state:
            document = complete_document(request.app.openapi_schema.to_schema())
            if not state.allows_password_grant:
                replace_password_scheme(document)
            encoded = msgspec.json.encode(document)
            state["document"] = encoded.replace(
                EXAMPLE_PUBLIC_URL.encode(), state.public_url.encode()
            )
        return Response(state["document"], media_type=MediaType.JSON)

    @get("/docs/files/{name:str}")
    async def asset(self, name: FromPath[str]) -> Response[bytes]:
        """Return a file that the pages load."""
        if name in SCRIPTS:
            script = SCRIPTS[name].encode()
            return Response(script, media_type="text/javascript", headers=ASSET_HEADERS)
        if name not in ASSETS:
            raise NotFoundException
        return _asset_response(name)


class ProblemTypesController(Controller):
    """Route for the `type` URLs of problem details."""

    path = "/problems"
    include_in_schema = False

    @get("/{slug:str}", media_type=MediaType.TEXT)
    async def describe(self, slug: FromPath[str]) -> str:
        """Return status and description of a problem type."""
        known = all_problem_types()
        if slug not in known:
            raise NotFoundException
        status, text = known[slug]
        return f"{slug} (HTTP {status})\n\n{text}\n"


def _asset_response(name: str) -> Response[bytes]:
    return Response(_read_asset(name), media_type=ASSETS[name][1], headers=ASSET_HEADERS)


@cache
def _read_asset(name: str) -> bytes:
    return ASSETS[name][0].read_bytes().replace(REDOC_LOGO_URL, BLANK_LOGO_URL)
