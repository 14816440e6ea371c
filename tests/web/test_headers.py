"""What browsers are told: nothing is for other origins, nothing is to be guessed or framed."""

import httpx
import msgspec
import pytest

from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, join

PATHS = ("/health/live", "/nowhere", f"{API}/me", "/docs", "/confirm", "/openapi.json", "/r/NONE")
ALLOWED_ORIGIN, OTHER_ORIGIN = "https://app.example.com", "https://evil.example.com"


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_safe_headers(client: httpx.AsyncClient, path: str) -> None:
    """No sniffing, no frames, no referrer, and a policy on what a page may load."""
    answer = await client.get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "*" not in policy
    assert "Strict-Transport-Security" not in answer.headers  # plain HTTP must not promise TLS


@pytest.mark.parametrize("path", [*PATHS, "/metrics", "/problems/not-found", "/docs/files/none"])
async def test_no_answer_is_kept_by_caches(client: httpx.AsyncClient, path: str) -> None:
    """Neither by a browser nor by a proxy, whatever the status."""
    assert (await client.get(path)).headers.get_list("Cache-Control") == ["no-store"]


async def test_nothing_about_a_user_is_kept_by_caches(client: httpx.AsyncClient) -> None:
    """The account, the export, codes, pictures and look-ups, from memory as well."""
    ann = await join(client)
    code = await ann.issue_code()
    paths = ["/me", "/me/export", "/me/referrals", f"/me/codes/{code['id']}/qr.svg"]
    paths += [f"/codes/lookup?email={ann.email}"] * 3 + ["/codes/lookup"]
    for path in paths:
        answer = await ann.request("GET", path)
        assert answer.headers.get_list("Cache-Control") == ["no-store"]


@pytest.mark.parametrize(
    "path",
    [
        "/docs/files/start.js",
        "/docs/files/swagger-ui.css",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    ],
)
async def test_public_documents_may_be_kept_for_a_while(
    client: httpx.AsyncClient, path: str
) -> None:
    """They say so themselves, once."""
    [told] = (await client.get(path)).headers.get_list("Cache-Control")
    assert told.startswith("public, max-age=")


@pytest.mark.parametrize("path", PATHS)
async def test_no_other_origin_is_let_in_by_default(client: httpx.AsyncClient, path: str) -> None:
    """Neither the request nor the question before it is allowed."""
    headers = {"Origin": OTHER_ORIGIN, "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = await client.request(method, path, headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_listed_origin_is_let_in_and_no_other(
    settings: Settings, serve: ServiceFactory
) -> None:
    """And none may send cookies, of which there are none."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(ALLOWED_ORIGIN,))) as client:
        ours = await client.get("/health/live", headers={"Origin": ALLOWED_ORIGIN})
        others = await client.get("/health/live", headers={"Origin": OTHER_ORIGIN})
    assert ours.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN
    assert "Access-Control-Allow-Credentials" not in ours.headers
    assert others.headers.get("Access-Control-Allow-Origin") != OTHER_ORIGIN
    assert others.headers.get("Access-Control-Allow-Origin") != "*"


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_that_is_not_listed_is_answered_like_anybody(
    settings: Settings, serve: ServiceFactory, path: str
) -> None:
    """Its questions before a request too, and neither learns what others may."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(ALLOWED_ORIGIN,))) as client:
        for method in ("GET", "OPTIONS"):
            wanted = {"Access-Control-Request-Method": "PATCH"}
            plain = await client.request(method, path)
            others = await client.request(method, path, headers={"Origin": OTHER_ORIGIN} | wanted)
            assert others.status_code == plain.status_code
            assert others.headers.get("content-type") == plain.headers.get("content-type")
            assert not [name for name in others.headers if name.startswith("access-control-")]


async def test_a_listed_page_reads_what_it_needs(settings: Settings, serve: ServiceFactory) -> None:
    """It may send what every route takes, and read when to come again."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(ALLOWED_ORIGIN,))) as client:
        wanted = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, idempotency-key",
        }
        before = await client.options(
            f"{API}/me/codes", headers={"Origin": ALLOWED_ORIGIN} | wanted
        )
        answer = await client.get(f"{API}/me", headers={"Origin": ALLOWED_ORIGIN})
    assert before.status_code == 204
    assert "POST" in before.headers["Access-Control-Allow-Methods"]
    allowed = before.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "idempotency-key"} <= set(allowed)
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Location", "Retry-After", "X-Request-ID"} <= set(exposed)


@pytest.mark.parametrize("path", [*PATHS, "/metrics"])
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    """The same status and headers, but for what is new each time."""
    got, asked = await client.get(path), await client.head(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert asked.headers.get("content-type") == got.headers.get("content-type")
    assert asked.headers.keys() == got.headers.keys()


async def test_head_is_allowed_where_get_is(client: httpx.AsyncClient) -> None:
    """As the header says that lists the methods."""
    assert (await client.options(f"{API}/me")).headers[
        "Allow"
    ] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    refused = await client.put("/health/live")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    refused = await client.head(f"{API}/auth/register")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "OPTIONS, POST")


async def test_figures_have_the_type_that_prometheus_knows(client: httpx.AsyncClient) -> None:
    """With each parameter once."""
    kind = (await client.get("/metrics")).headers["content-type"]
    assert kind == "text/plain; version=1.0.0; charset=utf-8"


async def test_an_answer_that_is_kept_names_no_other_callers_origin(
    settings: Settings, serve: ServiceFactory
) -> None:
    """A look-up that is answered from memory is for everybody, whoever asked first."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(ALLOWED_ORIGIN,))) as client:
        ann = await join(client)
        await ann.issue_code()
        path = f"{API}/codes/lookup?email={ann.email}"
        for headers in (
            {"Origin": ALLOWED_ORIGIN},
            {"Origin": ALLOWED_ORIGIN},
            {},
            {"Origin": OTHER_ORIGIN},
        ):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 200
            told = answer.headers.get("Access-Control-Allow-Origin")
            assert told == (ALLOWED_ORIGIN if headers.get("Origin") == ALLOWED_ORIGIN else None)
