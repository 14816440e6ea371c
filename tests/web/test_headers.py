"""Response headers: security, caching, CORS, and HEAD."""

import re
from base64 import b64encode
from hashlib import sha256

import httpx
import msgspec
import pytest

from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, join, new_email

PATHS = ("/health/live", "/nowhere", f"{API}/me", "/docs", "/confirm", "/openapi.json", "/r/NONE")
ALLOWED_ORIGIN, OTHER_ORIGIN = "https://app.example.com", "https://evil.example.com"


@pytest.mark.parametrize("path", PATHS)
async def test_every_response_has_security_headers(client: httpx.AsyncClient, path: str) -> None:
    """Sniffing, framing and referrers are off, and a policy limits what a page loads."""
    response = await client.get(path)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    # Under `no-referrer` a browser would hide the origin of the forms of a page.
    expected = "same-origin" if path == "/confirm" else "no-referrer"
    assert response.headers["Referrer-Policy"] == expected
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "*" not in policy
    assert "Strict-Transport-Security" not in response.headers  # plain HTTP must not promise TLS


@pytest.mark.parametrize("path", [*PATHS, "/metrics", "/problems/not-found", "/docs/files/none"])
async def test_responses_are_not_cacheable(client: httpx.AsyncClient, path: str) -> None:
    """No cache may store a response, whatever its status."""
    assert (await client.get(path)).headers.get_list("Cache-Control") == ["no-store"]


async def test_user_data_is_not_cacheable(client: httpx.AsyncClient) -> None:
    """Account, export, QR codes and look-ups are `no-store`, also from the service's cache."""
    ann = await join(client)
    code = await ann.issue_code()
    paths = ["/me", "/me/export", "/me/referrals", f"/me/codes/{code['id']}/qr.svg"]
    paths += [f"/codes/lookup?email={ann.email}"] * 3 + ["/codes/lookup"]
    for path in paths:
        response = await ann.request("GET", path)
        assert response.headers.get_list("Cache-Control") == ["no-store"]


@pytest.mark.parametrize(
    "path",
    [
        "/docs/files/start.js",
        "/docs/files/swagger-ui.css",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    ],
)
async def test_public_documents_are_cacheable(client: httpx.AsyncClient, path: str) -> None:
    """They have one Cache-Control header with a lifetime."""
    [value] = (await client.get(path)).headers.get_list("Cache-Control")
    assert value.startswith("public, max-age=")


@pytest.mark.parametrize("path", PATHS)
async def test_cors_is_off_by_default(client: httpx.AsyncClient, path: str) -> None:
    """Neither a request nor its preflight has CORS headers."""
    headers = {"Origin": OTHER_ORIGIN, "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        response = await client.request(method, path, headers=headers)
        assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_cors_allows_listed_origins_only(settings: Settings, serve: ServiceFactory) -> None:
    """Credentials are not allowed, as the API uses no cookies."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(ALLOWED_ORIGIN,))) as client:
        allowed = await client.get("/health/live", headers={"Origin": ALLOWED_ORIGIN})
        rejected = await client.get("/health/live", headers={"Origin": OTHER_ORIGIN})
    assert allowed.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN
    assert "Access-Control-Allow-Credentials" not in allowed.headers
    assert rejected.headers.get("Access-Control-Allow-Origin") != OTHER_ORIGIN
    assert rejected.headers.get("Access-Control-Allow-Origin") != "*"


@pytest.mark.parametrize("path", PATHS)
async def test_unlisted_origin_gets_the_plain_response(
    settings: Settings, serve: ServiceFactory, path: str
) -> None:
    """Its preflight too has the status of a plain OPTIONS, and no CORS header."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(ALLOWED_ORIGIN,))) as client:
        for method in ("GET", "OPTIONS"):
            preflight = {"Access-Control-Request-Method": "PATCH"}
            plain = await client.request(method, path)
            response = await client.request(
                method, path, headers={"Origin": OTHER_ORIGIN} | preflight
            )
            assert response.status_code == plain.status_code
            assert response.headers.get("content-type") == plain.headers.get("content-type")
            assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_cors_allows_and_exposes_the_needed_headers(
    settings: Settings, serve: ServiceFactory
) -> None:
    """A page may send Authorization and Idempotency-Key, and read Location and Retry-After."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(ALLOWED_ORIGIN,))) as client:
        preflight = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, idempotency-key",
        }
        preflight_response = await client.options(
            f"{API}/me/codes", headers={"Origin": ALLOWED_ORIGIN} | preflight
        )
        response = await client.get(f"{API}/me", headers={"Origin": ALLOWED_ORIGIN})
    assert preflight_response.status_code == 204
    assert "POST" in preflight_response.headers["Access-Control-Allow-Methods"]
    allowed = preflight_response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "idempotency-key"} <= set(allowed)
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Location", "Retry-After", "X-Request-ID"} <= set(exposed)


@pytest.mark.parametrize("path", [*PATHS, "/metrics"])
async def test_head_has_the_headers_of_get(client: httpx.AsyncClient, path: str) -> None:
    """Status and header names are the same, and the body is empty."""
    got, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers.get("content-type") == got.headers.get("content-type")
    assert head.headers.keys() == got.headers.keys()


async def test_empty_response_has_no_media_type(client: httpx.AsyncClient) -> None:
    """A generated client must not decode an empty body."""
    email = {"email": new_email()}
    accepted = await client.post(f"{API}/auth/password/forgot", json=email)
    keyed = {"Idempotency-Key": new_email()}
    for _ in range(2):
        replayed = await client.post(f"{API}/auth/password/forgot", json=email, headers=keyed)
    revoked = await client.post(f"{API}/auth/revoke", data={"token": "unknown"})
    redirect = await client.get("/r/UNKNOWN")
    for response in (accepted, replayed, revoked, redirect):
        assert response.is_success or response.is_redirect, response.text
        assert response.content == b""
        assert "content-type" not in response.headers


async def test_allow_lists_head_with_get(client: httpx.AsyncClient) -> None:
    """Routes without GET reject HEAD."""
    assert (await client.options(f"{API}/me")).headers[
        "Allow"
    ] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    response = await client.put("/health/live")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    response = await client.head(f"{API}/auth/register")
    assert (response.status_code, response.headers["Allow"]) == (405, "OPTIONS, POST")


async def test_metrics_have_the_prometheus_media_type(client: httpx.AsyncClient) -> None:
    """Each parameter occurs once."""
    media_type = (await client.get("/metrics")).headers["content-type"]
    assert media_type == "text/plain; version=1.0.0; charset=utf-8"


async def test_cached_response_has_the_origin_of_its_caller(
    settings: Settings, serve: ServiceFactory
) -> None:
    """A cached look-up does not have the first caller's CORS header."""
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
            response = await client.get(path, headers=headers)
            assert response.status_code == 200
            origin = response.headers.get("Access-Control-Allow-Origin")
            assert origin == (ALLOWED_ORIGIN if headers.get("Origin") == ALLOWED_ORIGIN else None)


async def test_content_security_policy_allows_the_style_of_a_page(
    client: httpx.AsyncClient,
) -> None:
    """By its hash; browsers ignore the style if the hash differs."""
    page = await client.get("/confirm")
    [style] = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]
